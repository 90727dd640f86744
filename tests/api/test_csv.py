"""CSV: planned row by row, applied whole or not at all, and given back."""

import pytest

from api.errors import Refused
from api.rules import csv_people, csv_plans
from api.rules.change import Actor, Control
from api.rules.csv_files import Row, read_rows
from api.rules.csv_plans import Plan
from api.rules.directory import create_directory_group
from api.rules.groups import attach_directory, create_group, delete_group
from api.rules.members import (
    NewMember,
    add_alias,
    create_member,
    deactivate_member,
    get_member,
    remove_member,
)
from api.rules.memberships import add_members
from schemas.records import MemberAlias, MemberAssigned
from tests.api.conftest import ADMIN
from tests.api.seen import facts, group, places, replayed_places
from tests.api.serving import serving
from tests.conftest import MakeSettings

BY_CSV = Actor("key:admin", "csv")


@pytest.fixture
def team(control: Control) -> Control:
    with control.change("org_a", ADMIN) as change:
        create_group(change, "Sales", "sales")
        for name in ("ann", "ben", "cas"):
            create_member(change, NewMember(f"{name}@example.com", member_id=name))
        add_members(change, "sales", ["cas"], "x")
    return control


def planned(control: Control, text: str, *, create: bool = False) -> Plan:
    with control.store.read() as session:
        return csv_plans.plan(session, "org_a", read_rows(text.encode()), create_members=create)


def applied(control: Control, text: str, digest: str, *, create: bool = False) -> Plan:
    """As the API does it: planned anew, outside the write, and applied within it."""
    plan = planned(control, text, create=create)
    with control.change("org_a", BY_CSV) as change:
        return csv_plans.apply(change, plan, digest)


@pytest.mark.parametrize(
    "raw",
    [
        b"group,email\nSales,ann@example.com\n",
        b"\xef\xbb\xbfgroup,email\r\nSales,ann@example.com\r\n",
        b"Email , note, GROUP\r\nann@example.com,x,Sales",
        b'"group","email"\r\n\r\n"Sales","ann@example.com"\r\n\r\n',
    ],
    ids=["plain", "bom_crlf", "other_order", "quoted"],
)
def test_files_as_they_come(raw: bytes) -> None:
    (row,) = read_rows(raw)
    assert (row.group, row.email) == ("Sales", "ann@example.com")


@pytest.mark.parametrize(
    "raw",
    [
        b"",
        b"name,mail\nx,y\n",
        b"group,email,email\nx,y,z\n",
        b"group,email\nx\n",
        b'group,email\n"x,y\n',
        b"group,email\n\xff,y\n",
        b"group,email\nx\x00,y\n",
        b"group,email\n" + b"x,y\n" * 100_001,
        b"group,email\n" + b"x" * 2_000 + b",y\n",
    ],
    ids=["empty", "header", "twice", "short", "quote", "latin", "nul", "long", "wide"],
)
def test_what_is_no_such_file(raw: bytes) -> None:
    with pytest.raises(Refused):
        read_rows(raw)


def test_quoted_commas_and_line_breaks() -> None:
    (row,) = read_rows(b'group,email\n"Sales, ""EU""",ann@example.com\n')
    assert row == Row(2, 'Sales, "EU"', "ann@example.com")


def test_a_plan_says_row_by_row_what_would_happen(team: Control) -> None:
    plan = planned(
        team,
        "group,email\nResearch,ann@example.com\nsales,CAS@example.com\nSales,x@example.com\n"
        "Sales,nonsense\n,ben@example.com\nSales,ann@example.com\nUnassigned,ben@example.com\n",
    )
    assert [one.action for one in plan.rows] == [
        *("move", "unchanged", "refused", "refused", "refused", "refused", "unchanged")
    ]
    assert plan.new_groups == ["Research"]
    assert plan.counts == {"move": 1, "unchanged": 2, "refused": 4}
    assert all(one.why for one in plan.refused)
    assert places(team) == {"cas": "sales"}


def test_nothing_is_applied_if_one_row_is_refused(team: Control) -> None:
    text = "group,email\nResearch,ann@example.com\nSales,nobody@example.com\n"
    with pytest.raises(Refused, match="rows_refused"):
        applied(team, text, planned(team, text).digest)
    assert places(team) == {"cas": "sales"}


def test_it_is_applied_as_planned_and_comes_back(team: Control) -> None:
    text = (
        "group,email\r\nResearch,ann@example.com\r\nResearch,new@example.com\r\n"
        'Sales,ben@example.com\r\n"The ""EU"", all",cas@example.com\r\n'
    )
    plan = planned(team, text, create=True)
    assert plan.counts == {"move": 3, "create_and_move": 1}
    applied(team, text, plan.digest, create=True)
    assert places(team) == replayed_places(team)
    assert places(team)["ben"] == "sales"
    assert group(team, "sales").configured_by == "csv"
    with team.store.read() as session:
        exported = csv_people.export(session, "org_a")
    rows = read_rows(exported.encode())
    assert [(row.group, row.email) for row in rows] == [
        *(("Research", f"{name}@example.com") for name in ("ann", "new")),
        ("Sales", "ben@example.com"),
        ('The "EU", all', "cas@example.com"),
    ]
    for again in (text, exported):
        assert {one.action for one in planned(team, again).rows} == {"unchanged"}


def test_a_plan_is_applied_only_while_it_holds(team: Control) -> None:
    text = "group,email\nSales,ann@example.com\n"
    digest = planned(team, text).digest
    with team.change("org_a", ADMIN) as change:
        remove_member(change, "ann")
    with pytest.raises(Refused, match="plan_changed"):
        applied(team, text, digest)
    with pytest.raises(Refused, match="plan_changed"):
        applied(team, text, "")


def test_a_plan_knows_where_everybody_was_and_is_to_come(team: Control) -> None:
    """The same actions by the same names, and yet not what somebody looked at."""
    text = "group,email\nSales,ann@example.com\n"
    digest = planned(team, text).digest
    with team.change("org_a", ADMIN) as change:
        create_group(change, "Lab", "lab")
        add_members(change, "lab", ["ann"], "x")
    assert planned(team, text).counts == {"move": 1}
    with pytest.raises(Refused, match="plan_changed"):
        applied(team, text, digest)
    digest = planned(team, text).digest
    with team.change("org_a", ADMIN) as change:
        delete_group(change, "sales")
        create_group(change, "Sales", "sales_again")
    with pytest.raises(Refused, match="plan_changed"):
        applied(team, text, digest)
    assert places(team) == {"ann": "lab"}


def test_what_changes_between_planning_and_writing_is_seen(team: Control) -> None:
    text = "group,email\nSales,ann@example.com\n"
    plan = planned(team, text)
    with team.change("org_a", ADMIN) as change:
        create_member(change, NewMember("dia@example.com", member_id="dia"))
    with team.change("org_a", BY_CSV) as change:
        csv_plans.apply(change, plan, plan.digest)
    assert places(team)["ann"] == "sales"
    plan = planned(team, "group,email\nUnassigned,ann@example.com\n")
    with team.change("org_a", ADMIN) as change:
        remove_member(change, "ann")
    with pytest.raises(Refused, match="plan_changed"), team.change("org_a", BY_CSV) as change:
        csv_plans.apply(change, plan, plan.digest)


def test_a_person_has_one_place_under_all_addresses(team: Control) -> None:
    with team.change("org_a", ADMIN) as change:
        add_alias(change, "ann", "a.nn@example.com")
        create_member(change, NewMember("old@example.com", member_id="old"))
        remove_member(change, "old")
    plan = planned(
        team,
        "group,email,member_id\nSales,ann@example.com,\nResearch,A.nn@example.com,\n"
        "sales,a.nn@example.com,\nResearch,,ann\nSales,old@example.com,\nResearch,,old\n",
        create=True,
    )
    assert [one.action for one in plan.rows] == [
        *("move", "refused", "unchanged", "refused", "create_and_move", "refused")
    ]
    assert plan.new_groups == []


def test_whom_the_dry_run_lets_in_and_whom_not(team: Control) -> None:
    with team.change("org_a", ADMIN) as change:
        create_member(change, NewMember(None, "Build bot", kind="service_account", member_id="bot"))
        create_member(change, NewMember("off@example.com", member_id="off"))
        add_alias(change, "off", "o.ff@example.com")
        deactivate_member(change, get_member(change, "off"))
    plan = planned(
        team,
        "group,email,member_id\nSales,,bot\nSales,off@example.com,\nSales,o.ff@example.com,\n"
        "Sales,ann@example.com,ben\nSales,,nobody\nSales,,off\nSales,x@example.com,ann\n",
        create=True,
    )
    assert [one.action for one in plan.rows] == ["move", *["refused"] * 6]
    assert "deactivated" in plan.refused[0].why


def test_formulas_leave_behind_an_apostrophe(team: Control) -> None:
    names = ["=cmd|' /C calc'!A0", "+Sales", "-1", "@here", "'=quoted", "'kept", "\uff1dwide"]
    with team.change("org_a", ADMIN) as change:
        for number, name in enumerate(names):
            create_group(change, name, f"g{number}")
            create_member(change, NewMember(f"=m{number}@example.com", member_id=f"m{number}"))
            add_members(change, f"g{number}", [f"m{number}"], "x")
    with team.store.read() as session:
        exported = csv_people.export(session, "org_a")
    cells = [cell for line in exported.splitlines() for cell in line.strip('"').split('","')]
    assert not [cell for cell in cells if cell.startswith(("=", "+", "-", "@", "\uff1d"))]
    assert {row.group for row in read_rows(exported.encode())} >= set(names)
    assert {one.action for one in planned(team, exported).rows} == {"unchanged"}


def test_who_had_left_comes_back(team: Control) -> None:
    with team.change("org_a", ADMIN) as change:
        remove_member(change, "ann")
    text = "group,email\nSales,ann@example.com\n"
    applied(team, text, planned(team, text, create=True).digest, create=True)
    assert places(team) == {"cas": "sales", "ann": "sales"}


def test_new_members_are_assigned_before_anything_else_is_said_of_them(team: Control) -> None:
    """The worker refuses an address of a member whom it does not know."""
    text = "group,email\nSales,dia@example.com\nUnassigned,eve@example.com\n"
    applied(team, text, planned(team, text, create=True).digest, create=True)
    published = [record.fact for record in facts(team)]
    first = {
        fact.member_id: fact
        for fact in reversed(published)
        if isinstance(fact, MemberAssigned | MemberAlias)
    }
    assert len(first) == 5
    assert all(isinstance(fact, MemberAssigned) for fact in first.values())
    aliases = {fact.member_id for fact in published if isinstance(fact, MemberAlias)}
    assert aliases == set(first)


def test_synced_groups_are_locked(team: Control) -> None:
    with team.change("org_a", ADMIN) as change:
        directory = create_directory_group(change, "Directory sales", None)
        create_group(change, "Synced", "synced")
        attach_directory(change, "synced", directory.id)
    plan = planned(team, "group,email\nDirectory sales,ann@example.com\n")
    assert "Directory sales" in plan.refused[0].why


def test_twenty_thousand_rows_at_once(control: Control) -> None:
    lines = [f"Group {number % 200},member{number}@example.com" for number in range(20_000)]
    text = "group,email\n" + "\n".join(lines)
    seen: list[tuple[str, int, int]] = []
    with control.store.read() as session:
        rows = read_rows(text.encode())
        plan = csv_plans.plan(
            session,
            "org_a",
            rows,
            create_members=True,
            progress=lambda *step: seen.append(step),
        )
    with control.change("org_a", BY_CSV) as change:
        csv_plans.apply(change, plan, plan.digest, progress=lambda *step: seen.append(step))
    assert len(places(control)) == 20_000
    assert len(seen) == 7


def test_a_group_admin_places_members_and_makes_none(make_settings: MakeSettings) -> None:
    file = "group,email\nSales,new@example.com\n"
    path = "/v1/organizations/org_a/groups/csv"
    with serving(make_settings()) as served:
        with served.client("group_admin") as groups:
            refused = groups.post(path, params={"create_members": "true"}, content=file)
            assert refused.status_code == 403
            assert "create_members" in refused.json()["error"]["what_to_do"]
            preview = groups.post(path, content=file).json()
            assert preview["counts"] == {"refused": 1}
        with served.client("admin") as admin:
            plan = admin.post(path, params={"create_members": "true"}, content=file).json()
            parameters = {"create_members": "true", "plan": plan["plan"]}
            assert admin.post(path, params=parameters, content=file).json()["applied"]
            again = admin.post(path, content=admin.get(path).content).json()
            assert again["counts"] == {"unchanged": 1}
            assert again["rows"][0]["member_id"]
