"""Text tables: a line a case, columns parted by `|`, the last one is what is expected."""

import pytest


def table(text: str) -> pytest.MarkDecorator:
    """A parametrize mark from a table; its first line names the arguments."""
    lines = [line for line in text.strip().splitlines() if line.strip()]
    rows = [[cell.strip() for cell in line.split("|")] for line in lines]
    names, cases = rows[0], rows[1:]
    assert all(len(case) == len(names) for case in cases), "a row with a column too many or few"
    return pytest.mark.parametrize(names, cases, ids=[" ".join(case)[:70] for case in cases])
