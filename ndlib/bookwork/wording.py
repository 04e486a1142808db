"""Numbers in sentences."""

from __future__ import annotations


def signed(value: float, digits: int = 1) -> str:
    """A difference with its sign, a true minus where it is negative: "+0.5", "\u22121.2". Zero is "+0.0"."""
    return f"{round(value, digits) + 0:+.{digits}f}".replace("-", "\u2212")
