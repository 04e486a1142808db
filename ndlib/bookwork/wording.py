"""Numbers in sentences."""

from __future__ import annotations

__all__ = ["signed"]


def signed(value: float, digits: int = 1) -> str:
    """A difference with its sign, with a true minus where it is negative; zero is positive.

    >>> signed(0.54), signed(-0.04)
    ('+0.5', '+0.0')
    >>> signed(-1.26) == "\N{MINUS SIGN}1.3"
    True
    """
    return f"{round(value, digits) + 0:+.{digits}f}".replace("-", "\u2212")
