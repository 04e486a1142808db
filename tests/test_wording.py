import pytest

from ndlib.bookwork.wording import signed


@pytest.mark.parametrize(
    ("value", "digits", "text"), [(0.54, 1, "+0.5"), (-1.26, 1, "\u22121.3"), (-0.004, 2, "+0.00"), (12, 0, "+12")]
)
def test_differences_have_their_sign_and_zero_has_none_of_its_own(value, digits, text):
    assert signed(value, digits) == text
