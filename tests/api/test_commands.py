"""`metering groups`, `keys`, `api --openapi`: the rules from the command line."""

import json
import resource
from datetime import UTC, datetime
from pathlib import Path

import pytest
from typer.testing import CliRunner

from api.rules.change import Control
from api.rules.directory import create_directory_group, set_directory_members
from api.rules.groups import create_group
from api.rules.members import NewMember, create_member
from cli import groups, keys
from cli.api import run_api
from cli.errors import Failure
from cli.members import erase_member
from schemas.settings import Settings
from tests.api.conftest import ADMIN, Clock, new_control
from tests.api.rated import RatedRow, insert_rated
from tests.api.seen import actions, places
from tests.conftest import MakeSettings
from warehouse.migrations import migrate as migrate_warehouse


@pytest.fixture
def control(tmp_path: Path, clock: Clock, monkeypatch: pytest.MonkeyPatch):  # type: ignore[no-untyped-def]
    from api.storage.migrate import migrate
    from api.storage.store import Store, database_url

    monkeypatch.setenv("METERING_DATA_DIR", str(tmp_path))
    monkeypatch.setenv("METERING_CLICKHOUSE_URL", "http://127.0.0.1:1")
    store = Store(database_url(Settings()))
    migrate(store)
    new = new_control(store, clock)
    with new.change("org_a", ADMIN) as change:
        for name in ("ann", "ben"):
            create_member(change, NewMember(f"{name}@example.com", member_id=name))
    yield new
    store.close()


def run(*arguments: str, app=groups.app, answer: str = "") -> str:  # type: ignore[no-untyped-def]
    result = CliRunner().invoke(app, arguments, input=answer)
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    assert result.exit_code == 0, result.output
    return result.output


def test_groups_by_hand(control) -> None:  # type: ignore[no-untyped-def]
    group_id = run("create", "-o", "org_a", "Sales").strip()
    run("add", "-o", "org_a", "sales", "ann", "BEN@example.com")
    assert places(control) == {"ann": group_id, "ben": group_id}
    run("create", "-o", "org_a", "Lab")
    run("move", "-o", "org_a", "Lab", "ben")
    run("remove", "-o", "org_a", "Sales", "ann")
    run("rename", "-o", "org_a", "Lab", "Research")
    table = run("list", "-o", "org_a")
    assert "Research" in table
    assert "manual" in table
    with pytest.raises(Failure, match="confirm_name"):
        run("delete", "-o", "org_a", "Research", "--confirm-name", "Lab")
    run("delete", "-o", "org_a", "Research", "--confirm-name", "Research")
    assert places(control) == {}
    assert "group.delete" in actions(control)


def test_spend_that_nobody_can_tell_is_not_shown_as_none(control) -> None:  # type: ignore[no-untyped-def]
    run("create", "-o", "org_a", "Sales")
    table = run("list", "-o", "org_a")
    assert [line.split()[-1] for line in table.splitlines() if "group_" in line] == ["?", "?"]


def test_the_list_shows_members_and_spend(
    control: Control,
    clickhouse: object,
    make_settings: MakeSettings,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    settings = make_settings()
    migrate_warehouse(settings)
    for name in ("url", "user", "database"):
        value = str(getattr(settings, f"clickhouse_{name}"))
        monkeypatch.setenv(f"METERING_CLICKHOUSE_{name.upper()}", value)
    secret = settings.clickhouse_password.get_secret_value()
    monkeypatch.setenv("METERING_CLICKHOUSE_PASSWORD", secret)
    monkeypatch.setenv("METERING_DATABASE_URL", control.store.url)
    sales = run("create", "-o", "org_a", "Sales").strip()
    run("create", "-o", "org_a", "Lab")
    run("add", "-o", "org_a", "Sales", "ann")
    now = datetime.now(UTC)
    insert_rated(
        settings,
        [
            RatedRow("e1", "ann", sales, now, 3_660_001),
            RatedRow("e2", "ben", "group_unassigned", now, 1_000_000),
        ],
    )
    cells = {
        line.split()[1]: line.split()[-3:]
        for line in run("list", "-o", "org_a").splitlines()
        if "group_" in line
    }
    assert cells == {
        "Sales": ["1", "3.660001", "0.03660001"],
        "Lab": ["0", "0.000000", "0.00000000"],
        "Unassigned": ["1", "1.000000", "0.01000000"],
    }


def test_what_is_not_there_has_nothing_to_do_with_keys(control) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(Failure, match=r"^There is no organization 'nope'\. Check the id\.$"):
        run("list", "-o", "nope")


def test_an_exact_id_beats_a_name(control) -> None:  # type: ignore[no-untyped-def]
    with control.change("org_a", ADMIN) as change:
        for group_id, name in (("a", "First"), ("b", "a")):
            create_group(change, name, group_id)
        create_member(change, NewMember("cas@example.com", member_id="ben@example.com"))
    run("add", "-o", "org_a", "a", "ben@example.com")
    assert places(control) == {"ben@example.com": "a"}
    run("rename", "-o", "org_a", "a", "Renamed")
    assert "Renamed (a)" in run("show", "-o", "org_a", "a")


def test_groups_follow_the_directory_by_hand(control) -> None:  # type: ignore[no-untyped-def]
    with control.change("org_a", ADMIN) as change:
        directories = [
            create_directory_group(change, name, None) for name in ("Dir sales", "Dir lab")
        ]
        for directory in directories:
            set_directory_members(change, directory, {"ann"})
        for name in ("Sales", "Lab", "Dir lab"):
            create_group(change, name, name.lower().replace(" ", "_"))
    run("attach", "-o", "org_a", "Sales", "dir SALES")
    run("attach", "-o", "org_a", "lab", directories[1].id)
    assert places(control) == {"ann": "sales"}
    listed = run("list", "-o", "org_a")
    assert "ann is wanted by Dir sales, Lab; it is in the first." in listed
    assert "Lab cannot take the name 'Dir lab'" in listed
    assert "it is in the first" in run("show", "-o", "org_a", "lab")
    rows = [line.split() for line in run("directories", "-o", "org_a").splitlines()]
    assert [line[1:] for line in rows[2:]] == [
        ["Dir", "lab", "Lab"],
        ["Dir", "sales", "Dir", "sales"],
    ]
    run("detach", "-o", "org_a", "sales")
    assert places(control) == {"ann": "lab"}
    with pytest.raises(Failure, match="no directory group"):
        run("attach", "-o", "org_a", "sales", "nobody")


@pytest.fixture
def with_groups(control) -> None:  # type: ignore[no-untyped-def]
    for name in ("Sales", "Field sales", "Lab"):
        run("create", "-o", "org_a", name)
    run("add", "-o", "org_a", "Lab", "ann")


@pytest.mark.usefixtures("with_groups")
def test_the_list_is_searched_and_filtered() -> None:
    def ids(*arguments: str) -> int:
        return sum("group_" in line for line in run("list", "-o", "org_a", *arguments).splitlines())

    assert (ids(), ids("--search", "SALES"), ids("--search", "x")) == (4, 3, 1)
    assert (ids("--configured-by", "manual"), ids("--configured-by", "csv")) == (4, 1)


@pytest.mark.usefixtures("with_groups")
def test_a_group_is_shown_with_its_members() -> None:
    assert "ann" in run("show", "-o", "org_a", "Lab")
    unassigned = run("show", "-o", "org_a", "group_unassigned")
    assert "ben@example.com" in unassigned
    assert "ann@example.com" not in unassigned
    with pytest.raises(Failure, match="no group 'x'"):
        run("show", "-o", "org_a", "x")


@pytest.mark.usefixtures("with_groups")
def test_the_list_is_of_a_billing_cycle() -> None:
    listed = run("list", "-o", "org_a", "--cycle", "2026-02-10")
    assert "Billing cycle 2026-02-01 00:00" in listed
    # Named as `report spend` names them.
    assert "Spend  Money (USD)" in listed


@pytest.mark.parametrize("option", [("--cycle", "yesterday"), ("--configured-by", "magic")])
@pytest.mark.usefixtures("control")
def test_a_list_of_what_there_is_not_is_exit_2(option: tuple[str, str]) -> None:
    assert CliRunner().invoke(groups.app, ["list", "-o", "org_a", *option]).exit_code == 2


def test_files(control, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    file = tmp_path / "groups.csv"
    file.write_text("group,email\nSales,ann@example.com\nSales,nobody@example.com\n")
    with pytest.raises(Failure, match="1 rows are refused"):
        run("import", "-o", "org_a", str(file))
    file.write_text("group,email\nSales,ann@example.com\n")
    run("import", "-o", "org_a", str(file), answer="n\n")
    assert places(control) == {}
    assert "Applied." in run("import", "-o", "org_a", str(file), answer="y\n")
    exported = run("export", "-o", "org_a")
    assert exported.splitlines() == [
        '"group","email","member_id"',
        '"Sales","ann@example.com","ann"',
        '"Unassigned","ben@example.com","ben"',
    ]
    file.write_text(exported)
    # There is nothing to be asked.
    assert run("import", "-o", "org_a", str(file)) == "unchanged: 2\nNothing to change.\n"
    with pytest.raises(Failure):
        run("import", "-o", "org_a", str(tmp_path / "none.csv"))


def test_a_file_that_never_ends_is_not_read_to_its_end(
    control: Control, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("METERING_API_CSV_LIMIT_BYTES", "2000")
    address_space = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (8 << 30, address_space[1]))
    try:
        with pytest.raises(Failure, match="longer than 2000 bytes"):
            run("import", "-o", "org_a", "/dev/zero")
    finally:
        resource.setrlimit(resource.RLIMIT_AS, address_space)


def test_keys(control) -> None:  # type: ignore[no-untyped-def]
    secret = run("create", "admin", "-o", "org_a", app=keys.app).strip()
    assert secret.startswith("mtr_")
    listed = run("list", "-o", "org_a", app=keys.app)
    assert secret[-4:] in listed
    assert secret not in listed
    run("revoke", listed.splitlines()[2].split()[0], "-o", "org_a", app=keys.app)
    assert "revoked" in run("list", "-o", "org_a", app=keys.app)
    with pytest.raises(Failure):
        run("create", "admin", app=keys.app)


def test_erasing_says_when_clickhouse_is_away(control) -> None:  # type: ignore[no-untyped-def]
    sentence = erase_member(Settings(), "org_a", "ann")
    assert "ClickHouse is away" in sentence
    assert "`dead-letters` 400 days" in sentence
    with pytest.raises(Failure):
        erase_member(Settings(), "org_a", "nobody")


def test_the_openapi_document_is_printed(capsys: pytest.CaptureFixture[str]) -> None:
    run_api(Settings(), openapi=True)
    assert json.loads(capsys.readouterr().out)["openapi"].startswith("3.1")


def test_a_database_that_is_not_migrated_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("METERING_DATA_DIR", str(tmp_path))
    with pytest.raises(Failure, match="metering migrate"):
        run("list", "-o", "org_a")
