import pytest

from ndlib.bookwork.wording import signed


@pytest.mark.parametrize(
    ("value", "digits", "text"), [(0.54, 1, "+0.5"), (-1.26, 1, "\u22121.3"), (-0.004, 2, "+0.00"), (12, 0, "+12")]
)
def test_signed_has_a_true_minus_and_a_positive_zero(value, digits, text):
    assert signed(value, digits) == text
