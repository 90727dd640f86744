"""CSV over organizations of any history: an export changes nothing, and a dry run is kept to."""

import random
from collections.abc import Callable

import pytest

from api.rules import csv_people, csv_plans
from api.rules.change import Change, Control
from api.rules.csv_files import Row, read_rows, write_rows
from api.rules.directory import create_directory_group, set_directory_members
from api.rules.groups import attach_directory, create_group
from api.rules.members import (
    NewMember,
    add_alias,
    create_member,
    deactivate_member,
    get_member,
    remove_member,
    update_member,
)
from api.rules.memberships import move_members
from api.rules.names import fold
from api.rules.organizations import OrganizationSettings, create_organization
from api.rules.provisioning import ProvisionedUser, provision
from tests.api.conftest import ADMIN, BY_SCIM
from tests.api.seen import places, replayed_places
from tests.api.test_csv import BY_CSV

PIECES = (*"aZ09 ,;:'\"=+-@|\t\\/", "''", "'=", "é", "É", "ß", "研", "\u0301", "❤️", "مب", "\uff1d")
HISTORIES = 3


def text(chance: random.Random, most: int = 12) -> str:
    drawn = "".join(chance.choice(PIECES) for _ in range(chance.randint(1, most)))
    return drawn.replace("\t", " ").strip() or "x"


def address(chance: random.Random) -> str:
    return f"{chance.choice(['', '=', '+', '-', 'É', 'ß'])}{chance.randint(0, 20)}@example.com"


def attempt(control: Control, organization_id: str, do: Callable[[Change], object]) -> None:
    """What the rules refuse is no part of the history."""
    from api.errors import Refused

    try:
        with control.change(organization_id, BY_SCIM) as change:
            do(change)
    except Refused:
        return


def any_history(control: Control, chance: random.Random, organization_id: str) -> None:
    """People who come every way, have other addresses, leave, are switched off, are moved."""
    with control.transaction(ADMIN) as transaction:
        create_organization(transaction, "Acme", OrganizationSettings(), organization_id)
    for number in range(4):
        name = text(chance)
        attempt(
            control,
            organization_id,
            lambda change, n=number, t=name: create_group(change, t, f"g{n}"),
        )
    for number in range(16):
        mail, user_name, member_id = address(chance), text(chance), f"m{number}"
        how = chance.choice(["hand", "scim", "bot"])
        if how == "scim":
            user = ProvisionedUser(user_name, chance.choice([(), (mail,)]), "", True, None, {})
            attempt(control, organization_id, lambda change, u=user: provision(change, u))
        else:
            new = NewMember(
                mail if how == "hand" else None,
                kind="person" if how == "hand" else "service_account",
                member_id=member_id,
            )
            attempt(control, organization_id, lambda change, n=new: create_member(change, n))
    with control.store.read() as session:
        people = sorted(csv_people.load(session, organization_id).people)
    with control.change(organization_id, BY_SCIM) as change:
        directory = create_directory_group(change, "Directory", None)
        set_directory_members(change, directory, set(people[:3]))
    attempt(control, organization_id, lambda change: attach_directory(change, "g3", directory.id))
    doings: list[Callable[[Change, str], object]] = [
        lambda change, member: move_members(change, {member: f"g{chance.randint(0, 2)}"}),
        lambda change, member: add_alias(change, member, address(chance)),
        lambda change, member: update_member(change, member, email=address(chance)),
        lambda change, member: remove_member(change, member),
        lambda change, member: deactivate_member(change, get_member(change, member)),
    ]
    for _ in range(25):
        member, do = chance.choice(people), chance.choices(doings, [5, 2, 2, 1, 1])[0]
        attempt(control, organization_id, lambda change, d=do, m=member: d(change, m))


@pytest.mark.parametrize("seed", [8])
def test_an_export_sent_back_changes_nothing(control: Control, seed: int) -> None:
    chance = random.Random(seed)
    for history in range(HISTORIES):
        organization_id = f"org_{history}"
        any_history(control, chance, organization_id)
        with control.store.read() as session:
            exported = csv_people.export(session, organization_id)
            snapshot = csv_people.load(session, organization_id)
            plan = csv_plans.plan(
                session, organization_id, read_rows(exported.encode()), create_members=True
            )
        active = {one.id for one in snapshot.people.values() if one.status == "active"}
        assert {one.member_id for one in plan.rows} == active
        assert set(plan.counts) <= {"unchanged"}, plan.refused
        assert plan.new_groups == []


@pytest.mark.parametrize("seed", [9])
def test_what_a_dry_run_allows_is_done_exactly(control: Control, seed: int) -> None:
    chance = random.Random(seed)
    rows_applied = 0
    for history in range(HISTORIES):
        organization_id = f"org_{history}"
        any_history(control, chance, organization_id)
        for _ in range(3):
            rows = [any_row(chance) for _ in range(15)]
            create = chance.random() < 0.8
            # The rows that are refused are left out, as people do, until none is.
            while True:
                file = read_rows(
                    write_rows((one.group, one.email, one.member_id) for one in rows).encode()
                )
                with control.store.read() as session:
                    plan = csv_plans.plan(session, organization_id, file, create_members=create)
                if not plan.refused:
                    break
                refused = {
                    (one.row.group, one.row.email, one.row.member_id) for one in plan.refused
                }
                rows = [one for one in rows if (one.group, one.email, one.member_id) not in refused]
            before = places(control, organization_id)
            with control.change(organization_id, BY_CSV) as change:
                csv_plans.apply(change, plan, plan.digest)
            rows_applied += len(file)
            _check(control, organization_id, plan, before)
    assert rows_applied > 30


def any_row(chance: random.Random) -> Row:
    group = chance.choice(["Unassigned", "Lab", "=Lab", "lab", text(chance)])
    if chance.random() < 0.2:
        return Row(0, group, "", f"m{chance.randint(0, 20)}")
    return Row(0, group, address(chance))


def _check(
    control: Control, organization_id: str, plan: csv_plans.Plan, before: dict[str, str]
) -> None:
    after = places(control, organization_id)
    assert after == replayed_places(control, organization_id)
    with control.store.read() as session:
        snapshot = csv_people.load(session, organization_id)
    named = set()
    for one in plan.rows:
        person = snapshot.people.get(one.member_id) or snapshot.by_address(one.row.email)
        assert person is not None, one
        named.add(person.id)
        target = snapshot.groups.get(fold(one.row.group))
        assert after.get(person.id) == target, one
    others = {member: group for member, group in after.items() if member not in named}
    assert others == {member: group for member, group in before.items() if member not in named}
