"""Amounts are shown exactly, to the last digit."""

import pytest

from warehouse.amounts import micro_text, pico_text


@pytest.mark.parametrize(
    ("micro", "text"),
    [
        (0, "0.00"),
        (1, "0.000001"),
        (-1, "-0.000001"),
        (1_500_000, "1.50"),
        (-12_345_678, "-12.345678"),
        (2**63 * 1000, "9223372036854775.808"),
    ],
)
def test_amounts_are_exact(micro: int, text: str) -> None:
    assert micro_text(micro) == text


def test_money_is_exact_to_the_last_digit() -> None:
    assert pico_text(10_000 * 3) == "0.00000003"
