"""Names and addresses: what may be one, how they are compared, and whose they are."""

import unicodedata

import pytest

from api.errors import Refused
from api.rules.change import Control
from api.rules.directory import (
    create_directory_group,
    set_directory_members,
    set_external_id,
)
from api.rules.groups import attach_directory, create_group
from api.rules.members import (
    NewMember,
    create_member,
    deactivate_member,
    find_by_address,
    get_member,
    remove_member,
    update_member,
)
from api.rules.memberships import add_members
from api.rules.names import clean_name, fold
from api.rules.organizations import OrganizationSettings
from api.rules.provisioning import ProvisionedUser, provision, update_provisioned
from api.storage.ledgers import AuditEntry
from api.storage.models import DirectoryGroup
from schemas import codec
from schemas.records import MemberAlias
from tests.api.conftest import ADMIN, BY_HAND, BY_SCIM, SECRET
from tests.api.seen import actions, facts, group


def user(user_name: str, email: str | None = None, **more: object) -> ProvisionedUser:
    said = {"name": "", "active": True, "external_id": None, "document": {}} | more
    return ProvisionedUser(user_name, (email,) if email else (), **said)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "unseen",
    [
        *("\u200b", "\u200d", "\u202e", "\u2066", "\ufeff", "\x07", "\n", "\u2028", "\u00ad"),
        *("\u034f", "\u115f", "\u3164", "\u2800", "\ufe0f", "\U000e0041", "\U000e0100", "\ue000"),
    ],
    ids=lambda character: f"U+{ord(character):04X}",
)
def test_what_cannot_be_seen_is_no_part_of_a_name(unseen: str) -> None:
    with pytest.raises(Refused, match=r"U\+[0-9A-F]{4}"):
        clean_name(f"Sa{unseen}les")


@pytest.mark.parametrize(
    "name",
    [
        "Sales",
        "Ventes & Co. (EU)",
        "Zürich",
        "研究開発",
        "مبيعات",
        "❤️ Team",
        "👩‍🚀 Crew",
        "🏳️‍🌈 Pride",
        "👍🏽",
    ],
)
def test_what_people_write_is_a_name(name: str) -> None:
    assert clean_name(name) == unicodedata.normalize("NFC", name)


@pytest.mark.parametrize("address", ["zoë@example.com", "Ångström@example.com", "ΌΣΟΣ@example.com"])
def test_an_address_is_the_same_however_it_was_typed(control: Control, address: str) -> None:
    """Products send what a person's keyboard made: composed or not, in capitals or not."""
    typed = [
        form(unicodedata.normalize(composed, address))
        for composed in ("NFC", "NFD")
        for form in (str, str.upper, str.lower)
    ]
    assert {fold(one) for one in typed} == {fold(address)}
    with control.change("org_a", ADMIN) as change:
        create_member(change, NewMember(typed[0], member_id="zoe"))
        assert all(find_by_address(change, one) for one in typed)
        with pytest.raises(Refused, match="address_taken"):
            create_member(change, NewMember(typed[3]))
    (alias,) = [one.fact for one in facts(control) if isinstance(one.fact, MemberAlias)]
    assert {codec.alias_hash(SECRET, one) for one in typed} == {alias.alias_hash}


def test_a_user_name_is_nobody_elses_address(control: Control) -> None:
    with control.change("org_a", BY_SCIM) as change:
        ann = provision(change, user("ann@example.com", "ann.mail@example.com"))
        ben = provision(change, user("ben@example.com"))
    for taken in ("ANN@example.com", "ann.mail@example.com"):
        with (
            pytest.raises(Refused, match="address_taken") as by_hand,
            control.change("org_a", ADMIN) as change,
        ):
            update_member(change, ben.id, email=taken)
        assert taken in by_hand.value.message
        assert by_hand.value.details["member_id"] == ann.id
        for sent in (user(taken), user("ben@example.com", taken)):
            with (
                pytest.raises(Refused, match="address_taken"),
                control.change("org_a", BY_SCIM) as change,
            ):
                update_provisioned(change, get_member(change, ben.id), sent)
        for sent in (user(taken), user("new@example.com", taken)):
            with (
                pytest.raises(Refused, match="address_taken") as by_scim,
                control.change("org_a", BY_SCIM) as change,
            ):
                provision(change, sent)
            assert taken in by_scim.value.message


def test_who_has_left_keeps_the_address_until_somebody_comes_with_it(control: Control) -> None:
    with control.change("org_a", BY_SCIM) as change:
        ann = provision(change, user("ann@example.com", "ann.mail@example.com"))
        ben = provision(change, user("ben@example.com"))
        remove_member(change, ann.id)
    with pytest.raises(Refused, match="former member"), control.change("org_a", ADMIN) as change:
        update_member(change, ben.id, email="ann@example.com")
    with control.change("org_a", BY_SCIM) as change:
        assert provision(change, user("ann.mail@example.com")).id == ann.id


def test_a_person_who_leaves_does_not_change_how_a_group_is_configured(control: Control) -> None:
    with control.change("org_a", BY_HAND) as change:
        create_group(change, "Sales", "sales")
        for name in ("ann", "ben", "cas"):
            create_member(change, NewMember(f"{name}@example.com", member_id=name))
        add_members(change, "sales", ["ann", "ben", "cas"], "x")
    with control.change("org_a", BY_SCIM) as change:
        deactivate_member(change, get_member(change, "ann"))
    assert group(control, "sales").configured_by == "manual"
    with control.change("org_a", ADMIN) as change:
        remove_member(change, "ben")
    assert group(control, "sales").configured_by == "manual"


def test_a_group_that_a_synced_one_takes_a_member_from_stays_manual(control: Control) -> None:
    with control.change("org_a", BY_HAND) as change:
        create_group(change, "Sales", "sales")
        create_group(change, "Lab", "lab")
        create_member(change, NewMember("ann@example.com", member_id="ann"))
        add_members(change, "sales", ["ann"], "x")
        directory = create_directory_group(change, "Directory lab", None)
        attach_directory(change, "lab", directory.id)
    with control.change("org_a", BY_SCIM) as change:
        row = change.session.get_one(DirectoryGroup, ("org_a", directory.id))
        set_directory_members(change, row, {"ann"})
    assert group(control, "sales").configured_by == "manual"
    assert group(control, "lab").configured_by == "scim"


def test_another_external_id_is_in_the_audit_log(control: Control) -> None:
    with control.change("org_a", BY_SCIM) as change:
        ann = provision(change, user("ann@example.com", external_id="ext-1"))
        directory = create_directory_group(change, "Lab", "ext-1")
    with control.change("org_a", BY_SCIM) as change:
        member = get_member(change, ann.id)
        update_provisioned(change, member, user("ann@example.com", external_id="ext-2"))
        row = change.session.get_one(DirectoryGroup, ("org_a", directory.id))
        set_external_id(change, row, "ext-2")
        set_external_id(change, row, "ext-2")
    assert actions(control)[-2:] == ["member.update", "directory_group.external_id"]
    with control.store.read() as session:
        entries = session.query(AuditEntry).order_by(AuditEntry.id).all()[-2:]
    for entry in entries:
        assert entry.before is not None
        assert entry.after is not None
        assert (entry.before["external_id"], entry.after["external_id"]) == ("ext-1", "ext-2")


@pytest.mark.parametrize(
    "sent",
    [
        user(" ann@example.com"),
        user("ann\u200b@example.com"),
        user("ann", "ann\u202e@example.com"),
        user("ann", external_id="x" * 256),
        user("ann", external_id="\x07"),
        user("a" * 256),
        user(""),
    ],
    ids=["space", "zero_width", "rtl_mail", "long_id", "control_id", "long", "empty"],
)
def test_a_user_who_cannot_be_kept_is_refused_with_the_field(
    control: Control, sent: ProvisionedUser
) -> None:
    with pytest.raises(Refused) as refused, control.change("org_a", BY_SCIM) as change:
        provision(change, sent)
    assert refused.value.status == 400
    assert refused.value.where in ("userName", "email", "externalId")


@pytest.mark.parametrize(
    "zone", ["right/Europe/Berlin", "posix/Europe/Berlin", "localtime", "europe/berlin", "../UTC"]
)
def test_a_zone_that_only_this_machine_knows_is_refused(zone: str) -> None:
    with pytest.raises(Refused, match="no time zone"):
        OrganizationSettings(time_zone=zone).check()
    OrganizationSettings(time_zone="Europe/Berlin").check()
