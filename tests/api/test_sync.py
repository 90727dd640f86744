"""Billing groups that follow directory groups: who is where, and why it never flaps."""

import random

import pytest

from api.errors import Refused
from api.rules.change import Control
from api.rules.directory import (
    create_directory_group,
    directory_members,
    rename_directory_group,
    set_directory_members,
)
from api.rules.groups import (
    attach_directory,
    create_group,
    delete_directory_group,
    delete_group,
    detach_directory,
    follow_name,
    rename_group,
)
from api.rules.members import (
    NewMember,
    create_member,
    deactivate_member,
    get_member,
    reactivate_member,
    remove_member,
)
from api.rules.memberships import add_members, live_group, move_members
from api.storage.models import DirectoryGroup
from tests.api.conftest import ADMIN, BY_HAND, BY_SCIM, Clock
from tests.api.seen import facts, group, places, replayed_places


class Company:
    """Members ann, ben, cas; billing groups g1, g2; directory groups d1, d2."""

    def __init__(self, control: Control, clock: Clock) -> None:
        self.control, self.clock = control, clock
        with control.change("org_a", ADMIN) as change:
            for name in ("ann", "ben", "cas"):
                create_member(change, NewMember(f"{name}@example.com", member_id=name))
            for name in ("g1", "g2"):
                create_group(change, name, name)
            self.d = {name: create_directory_group(change, name, None).id for name in ("d1", "d2")}

    def attach(self, group_id: str, directory: str) -> None:
        self.clock.forward(seconds=1)
        with self.control.change("org_a", ADMIN) as change:
            attach_directory(change, group_id, self.d[directory])

    def detach(self, group_id: str) -> None:
        self.clock.forward(seconds=1)
        with self.control.change("org_a", ADMIN) as change:
            detach_directory(change, group_id)

    def members(self, directory: str, *members: str) -> None:
        self.clock.forward(seconds=1)
        with self.control.change("org_a", BY_SCIM) as change:
            row = change.session.get_one(DirectoryGroup, ("org_a", self.d[directory]))
            set_directory_members(change, row, set(members))

    def rename(self, directory: str, group_id: str, name: str) -> None:
        with self.control.change("org_a", BY_SCIM) as change:
            row = change.session.get_one(DirectoryGroup, ("org_a", self.d[directory]))
            rename_directory_group(change, row, name)
            follow_name(change, live_group(change, group_id), name)

    @property
    def places(self) -> dict[str, str]:
        current = places(self.control)
        assert current == replayed_places(self.control)
        return current


@pytest.fixture
def company(control: Control, clock: Clock) -> Company:
    return Company(control, clock)


def test_attaching_replaces_members_and_locks(company: Company) -> None:
    with company.control.change("org_a", ADMIN) as change:
        add_members(change, "g1", ["cas"], "x")
        add_members(change, "g2", ["ann"], "x")
    company.members("d1", "ann", "ben")
    company.attach("g1", "d1")
    assert company.places == {"ann": "g1", "ben": "g1"}
    assert group(company.control, "g1").configured_by == "scim"
    assert group(company.control, "g1").name == "d1"
    for how in (ADMIN, BY_HAND):
        with (
            pytest.raises(Refused, match="group_synced") as refused,
            company.control.change("org_a", how) as change,
        ):
            add_members(change, "g1", ["cas"], "x")
        assert refused.value.details["directory_group_name"] == "d1"
    with (
        pytest.raises(Refused, match="group_synced"),
        company.control.change("org_a", ADMIN) as change,
    ):
        move_members(change, {"ann": "g2"})


def test_detaching_keeps_the_members_as_manual(company: Company) -> None:
    company.members("d1", "ann", "ben")
    company.attach("g1", "d1")
    company.detach("g1")
    assert company.places == {"ann": "g1", "ben": "g1"}
    assert group(company.control, "g1").configured_by == "manual"
    company.members("d1")
    assert company.places == {"ann": "g1", "ben": "g1"}
    with company.control.change("org_a", BY_HAND) as change:
        move_members(change, {"ann": "g2"})


def test_in_two_synced_groups_the_first_keeps_the_member(company: Company) -> None:
    company.attach("g1", "d1")
    company.attach("g2", "d2")
    company.members("d2", "ann")
    company.members("d1", "ann")
    assert company.places == {"ann": "g2"}
    for _ in range(3):
        company.members("d1", "ann", "ben")
        company.members("d1", "ann")
    assert company.places == {"ann": "g2"}
    company.members("d2")
    assert company.places == {"ann": "g1"}
    company.members("d2", "ann")
    assert company.places == {"ann": "g1"}
    company.members("d1")
    company.members("d2")
    assert company.places == {}


def test_a_message_that_removes_and_adds_the_same_member_changes_nothing(company: Company) -> None:
    company.attach("g1", "d1")
    company.members("d1", "ann", "ben")
    before = len(facts(company.control))
    company.members("d1", "ben", "ann")
    assert len(facts(company.control)) == before


def test_deactivation_unassigns_and_reactivation_leads_back(company: Company) -> None:
    company.attach("g1", "d1")
    company.members("d1", "ann")
    with company.control.change("org_a", BY_SCIM) as change:
        deactivate_member(change, get_member(change, "ann"))
    assert company.places == {}
    company.members("d1", "ann", "ben")
    assert company.places == {"ben": "g1"}
    with company.control.change("org_a", BY_SCIM) as change:
        reactivate_member(change, get_member(change, "ann"))
    assert company.places == {"ann": "g1", "ben": "g1"}


def test_a_rename_follows_and_a_clash_keeps_the_old_name(company: Company) -> None:
    company.attach("g1", "d1")
    company.rename("d1", "g1", "Research")
    assert group(company.control, "g1").name == "Research"
    company.rename("d1", "g1", "G2")
    row = group(company.control, "g1")
    assert (row.name, row.name_conflict) == ("Research", "G2")
    with company.control.change("org_a", ADMIN) as change:
        rename_group(change, "g2", "Sales")
    row = group(company.control, "g1")
    assert (row.name, row.name_conflict) == ("G2", None)


def test_deleting_a_synced_group_leads_to_the_next(company: Company) -> None:
    company.attach("g1", "d1")
    company.attach("g2", "d2")
    company.members("d1", "ann", "ben")
    company.members("d2", "ann")
    with company.control.change("org_a", ADMIN) as change:
        delete_group(change, "g1")
    assert company.places == {"ann": "g2"}


def test_a_directory_group_that_is_deleted_leaves_the_members_where_they_are(
    company: Company,
) -> None:
    company.attach("g1", "d1")
    company.members("d1", "ann")
    with company.control.change("org_a", BY_SCIM) as change:
        delete_directory_group(change, company.d["d1"])
    assert company.places == {"ann": "g1"}
    assert group(company.control, "g1").directory_group_id is None


def test_a_directory_group_is_synced_once(company: Company) -> None:
    company.attach("g1", "d1")
    with pytest.raises(Refused, match="directory_group_taken"):
        company.attach("g2", "d1")
    with pytest.raises(Refused, match="group_synced"):
        company.attach("g1", "d2")


def test_only_the_directory_removes_its_members(company: Company) -> None:
    company.attach("g1", "d1")
    company.members("d1", "ann")
    with (
        pytest.raises(Refused, match="group_synced"),
        company.control.change("org_a", ADMIN) as change,
    ):
        remove_member(change, "ann")
    with company.control.change("org_a", BY_SCIM) as change:
        remove_member(change, "ann")
    assert company.places == {}
    with company.control.change("org_a", BY_SCIM) as change:
        assert directory_members(change, company.d["d1"]) == []


@pytest.mark.parametrize("seed", range(5))
def test_random_histories_end_where_the_directory_says(company: Company, seed: int) -> None:
    """After anything at all, every member of exactly one synced directory group is there, and a
    member of several is in one of them."""
    chance = random.Random(seed)
    synced: dict[str, str] = {}
    inside: dict[str, set[str]] = {"d1": set(), "d2": set()}
    for _ in range(40):
        number = chance.choice("12")
        directory, billing = f"d{number}", f"g{number}"
        if chance.random() < 0.3:
            if directory in synced:
                company.detach(billing)
                del synced[directory]
            else:
                company.attach(billing, directory)
                synced[directory] = billing
        else:
            inside[directory] = {one for one in ("ann", "ben", "cas") if chance.random() < 0.5}
            company.members(directory, *inside[directory])
        actual = company.places
        for member in ("ann", "ben", "cas"):
            expected = {synced[one] for one in synced if member in inside[one]}
            if expected:
                assert actual[member] in expected
            else:
                assert actual.get(member) not in synced.values()
