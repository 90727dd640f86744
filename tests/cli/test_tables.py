"""Tables for people: one number of decimals in a column, and blocks where there is no room."""

from cli.tables import number, table, text

COLUMNS = [text("Group"), number("Events"), number("Spend")]
ROWS = [["Editors", "12", "1.50"], ["Research", "7", "-0.333333"], ["Nobody", "0", "?"]]


def test_numbers_stand_to_the_right_with_one_number_of_decimals() -> None:
    assert table(COLUMNS, ROWS, total=["Total", "19", "1.166667"], width=80) == [
        "Group     Events      Spend",
        "---------------------------",
        "Editors       12   1.500000",
        "Research       7  -0.333333",
        "Nobody         0          ?",
        "---------------------------",
        "Total         19   1.166667",
    ]


def test_whole_numbers_get_no_decimals() -> None:
    assert table([text("Day"), number("Events")], [["1", "9"], ["2", "10"]], width=80)[2:] == [
        "1         9",
        "2        10",
    ]


def test_where_there_is_no_room_a_row_is_a_block() -> None:
    assert table(COLUMNS, ROWS[:2], total=["Total", "19", "1.166667"], width=26) == [
        "Group",
        "-----",
        "Editors",
        "  Events  12",
        "  Spend   1.500000",
        "Research",
        "  Events  7",
        "  Spend   -0.333333",
        "-----",
        "Total",
        "  Events  19",
        "  Spend   1.166667",
    ]


def test_a_list_without_rows_has_its_header() -> None:
    assert table(COLUMNS, [], width=80) == ["Group  Events  Spend", "--------------------"]
