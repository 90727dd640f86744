"""Groups and members: every rule of the seed, on both databases."""

from concurrent.futures import ThreadPoolExecutor

import pytest

from api.errors import Refused
from api.rules.change import Control
from api.rules.groups import create_group, delete_group, rename_group
from api.rules.members import (
    NewMember,
    add_alias,
    create_member,
    remove_alias,
    remove_member,
    update_member,
)
from api.rules.memberships import add_members, move_members, remove_members
from api.rules.organizations import OrganizationSettings, create_organization
from api.rules.prices import NewPrice, set_default_price
from api.rules.websites import create_website, update_website
from api.storage.models import GroupName, Website
from schemas.codec import alias_hash
from schemas.records import (
    GroupCreated,
    GroupDeleted,
    MemberAlias,
    OrganizationCreated,
    PriceSet,
)
from tests.api.conftest import ADMIN, BY_HAND, SECRET, Clock
from tests.api.seen import actions, facts, group, places, replayed_places


@pytest.fixture
def team(control: Control) -> Control:
    """Groups `group_1` (Sales), `group_2` (Research); members `ann`, `ben`, `cas`, Unassigned."""
    with control.change("org_a", ADMIN) as change:
        create_group(change, "Sales", "group_1")
        create_group(change, "Research", "group_2")
        for name in ("ann", "ben", "cas"):
            create_member(change, NewMember(f"{name}@example.com", name.title(), member_id=name))
    return control


def test_versions_are_gap_free_from_organization_created(team: Control) -> None:
    records = facts(team)
    assert [record.version for record in records] == list(range(1, len(records) + 1))
    assert isinstance(records[0].fact, OrganizationCreated)
    assert GroupCreated("group_1") in [record.fact for record in records]


def test_facts_hold_no_names_or_addresses(team: Control) -> None:
    text = repr(facts(team)).lower()
    assert "example.com" not in text
    assert "sales" not in text
    ann = MemberAlias("ann", alias_hash(SECRET, "ann@example.com"))
    assert ann in [record.fact for record in facts(team)]


def test_add_remove_and_the_label_of_the_last_way(team: Control, clock: Clock) -> None:
    with team.change("org_a", ADMIN) as change:
        add_members(change, "group_1", ["ann", "ben"], "userIds")
    assert places(team) == {"ann": "group_1", "ben": "group_1"}
    assert group(team, "group_1").configured_by == "api"
    clock.forward(hours=1)
    with team.change("org_a", BY_HAND) as change:
        remove_members(change, "group_1", ["ann"], "userIds")
    assert places(team) == {"ben": "group_1"} == replayed_places(team)
    assert group(team, "group_1").configured_by == "manual"


def test_adding_somebody_of_another_group_is_refused_whole(team: Control) -> None:
    with team.change("org_a", ADMIN) as change:
        add_members(change, "group_1", ["ann"], "userIds")
    with (
        pytest.raises(Refused, match="member_in_other_group") as refused,
        team.change("org_a", ADMIN) as change,
    ):
        add_members(change, "group_2", ["ben", "ann"], "userIds")
    assert refused.value.where == "userIds[1]"
    assert places(team) == {"ann": "group_1"}


def test_adding_twice_says_nothing_new(team: Control) -> None:
    for _ in range(2):
        with team.change("org_a", ADMIN) as change:
            add_members(change, "group_1", ["ann"], "userIds")
    assert sum("group_1" in repr(record.fact) for record in facts(team)) == 2


def test_a_move_is_one_fact(team: Control) -> None:
    with team.change("org_a", ADMIN) as change:
        move_members(change, {"ann": "group_1", "ben": "group_2"})
    before = len(facts(team))
    with team.change("org_a", ADMIN) as change:
        move_members(change, {"ann": "group_2", "ben": "group_unassigned", "cas": "group_1"})
    assert places(team) == {"ann": "group_2", "cas": "group_1"} == replayed_places(team)
    assert len(facts(team)) == before + 3


def test_a_batch_of_moves_is_all_or_nothing(team: Control) -> None:
    with pytest.raises(Refused, match="not_found"), team.change("org_a", ADMIN) as change:
        move_members(change, {"ann": "group_1", "nobody": "group_2"})
    assert places(team) == {}


@pytest.mark.parametrize("name", ["Research", "RESEARCH ", "unassigned", "", "a\x00b", "x" * 256])
def test_names_that_a_group_cannot_have(team: Control, name: str) -> None:
    with pytest.raises(Refused), team.change("org_a", ADMIN) as change:
        rename_group(change, "group_1", name)
    assert group(team, "group_1").name == "Sales"


def test_renaming_keeps_history_and_frees_the_old_name(team: Control) -> None:
    with team.change("org_a", ADMIN) as change:
        rename_group(change, "group_1", "Field sales")
        create_group(change, "sales", "group_3")
    with team.store.read() as session:
        names = session.query(GroupName).filter_by(group_id="group_1").order_by(GroupName.id).all()
    assert [name.name for name in names] == ["Sales", "Field sales"]
    assert names[0].valid_to == names[1].valid_from
    assert names[1].valid_to is None


def test_unassigned_cannot_be_changed(team: Control) -> None:
    for rule in (delete_group, lambda change, name: rename_group(change, name, "x")):
        with pytest.raises(Refused, match="reserved_group"), team.change("org_a", ADMIN) as change:
            rule(change, "group_unassigned")


def test_deleting_needs_the_name_and_unassigns_members_and_websites(team: Control) -> None:
    with team.change("org_a", ADMIN) as change:
        add_members(change, "group_1", ["ann"], "userIds")
        create_website(change, "Shop", "group_1", "web_1")
    with (
        pytest.raises(Refused, match="confirmation_differs"),
        team.change("org_a", ADMIN) as change,
    ):
        delete_group(change, "group_1", "Research")
    with team.change("org_a", ADMIN) as change:
        delete_group(change, "group_1", "sales")
    assert places(team) == {} == replayed_places(team)
    assert facts(team)[-1].fact == GroupDeleted("group_1")
    with team.store.read() as session:
        assert session.get_one(Website, ("org_a", "web_1")).group_id is None
    with pytest.raises(Refused, match="not_found"), team.change("org_a", ADMIN) as change:
        add_members(change, "group_1", ["ben"], "userIds")


def test_the_id_of_a_deleted_group_is_not_used_again_but_its_name_may_be(team: Control) -> None:
    with team.change("org_a", ADMIN) as change:
        delete_group(change, "group_1")
        create_group(change, "Sales", "group_9")
    with pytest.raises(Refused, match="group_exists"), team.change("org_a", ADMIN) as change:
        create_group(change, "Sales again", "group_1")


def test_who_left_can_be_in_no_group(team: Control) -> None:
    with team.change("org_a", ADMIN) as change:
        add_members(change, "group_1", ["ann"], "userIds")
        remove_member(change, "ann")
    assert places(team) == {} == replayed_places(team)
    with pytest.raises(Refused, match="not_found"), team.change("org_a", ADMIN) as change:
        add_members(change, "group_1", ["ann"], "userIds")


def test_addresses_belong_to_one_member(team: Control) -> None:
    with pytest.raises(Refused, match="address_taken"), team.change("org_a", ADMIN) as change:
        update_member(change, "ben", email="ANN@example.com")
    with team.change("org_a", ADMIN) as change:
        update_member(change, "ann", email="ann@example.org")
        update_member(change, "ben", email="ann@example.com")
    aliases = [r.fact for r in facts(team) if isinstance(r.fact, MemberAlias)]
    hashed = alias_hash(SECRET, "ann@example.com")
    last = [fact for fact in aliases if fact.alias_hash == hashed][-2:]
    assert last == [MemberAlias("ann", hashed, removed=True), MemberAlias("ben", hashed)]


def test_further_aliases(team: Control) -> None:
    with team.change("org_a", ADMIN) as change:
        add_alias(change, "ann", "a.nn@example.com")
    with pytest.raises(Refused, match="alias_taken"), team.change("org_a", ADMIN) as change:
        add_alias(change, "ben", "A.NN@example.com")
    with pytest.raises(Refused, match="alias_in_use"), team.change("org_a", ADMIN) as change:
        remove_alias(change, "ann", "ann@example.com")
    with team.change("org_a", ADMIN) as change:
        remove_alias(change, "ann", "a.nn@example.com")
    assert facts(team)[-1].fact == MemberAlias(
        "ann", alias_hash(SECRET, "a.nn@example.com"), removed=True
    )


def test_a_website_moves_between_groups(team: Control) -> None:
    with team.change("org_a", ADMIN) as change:
        create_website(change, "Shop", website_id="web_1")
        update_website(change, "web_1", group_id="group_1")
        update_website(change, "web_1", name="Store", group_id="group_1")
    records = [record for record in facts(team) if "web_1" in repr(record.fact)]
    assert len(records) == 2


def test_later_changes_have_later_times_even_when_the_clock_goes_back(
    team: Control, clock: Clock
) -> None:
    clock.forward(hours=-1)
    with team.change("org_a", ADMIN) as change:
        move_members(change, {"ann": "group_1"})
    with team.change("org_a", ADMIN) as change:
        move_members(change, {"ann": "group_2"})
    times = [record.effective_at for record in facts(team)]
    assert times == sorted(times)
    assert times[-1] > times[-2]


def test_everything_is_in_the_audit_log(team: Control) -> None:
    with team.change("org_a", ADMIN) as change:
        move_members(change, {"ann": "group_1"})
        rename_group(change, "group_1", "S")
        delete_group(change, "group_1")
    assert [action for action in actions(team) if action.startswith(("group", "member.move"))] == [
        "group.create",
        "group.create",
        "member.move",
        "group.rename",
        "member.move",
        "group.delete",
    ]


def test_two_admins_who_move_the_same_member_end_in_one_of_the_results(team: Control) -> None:
    def move(number: int) -> None:
        with team.change("org_a", ADMIN) as change:
            move_members(
                change, {"ann": f"group_{number % 2 + 1}", "ben": f"group_{number % 2 + 1}"}
            )

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(move, range(40)))
    final = places(team)
    assert final["ann"] == final["ben"]
    assert final == replayed_places(team)
    versions = [record.version for record in facts(team)]
    assert versions == list(range(1, len(versions) + 1))


def test_no_new_organization_misses_a_default_price(control: Control) -> None:
    def make(number: int) -> None:
        with control.transaction(ADMIN) as transaction:
            if number % 2:
                set_default_price(transaction, NewPrice(f"meter_{number}", 1))
            else:
                create_organization(transaction, "x", OrganizationSettings(), f"org_{number}")

    with ThreadPoolExecutor(6) as pool:
        list(pool.map(make, range(12)))
    for organization_id in ["org_a", *(f"org_{number}" for number in range(0, 12, 2))]:
        published = [record.fact for record in facts(control, organization_id)]
        assert sum(isinstance(fact, PriceSet) for fact in published) == 6
