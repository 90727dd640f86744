"""Organizations and what they are made of: members, groups, memberships, websites, directories."""

from datetime import datetime
from typing import Final

from sqlalchemy import CheckConstraint, ForeignKey, ForeignKeyConstraint, Index, String, text
from sqlalchemy.orm import Mapped, mapped_column

from api.storage.base import FOLDED, ID, NAME, SERIAL, Base, JsonObject
from schemas.records import UNASSIGNED

LIVE: Final = text("deleted_at IS NULL")
HOW: Final = "('scim', 'api', 'csv', 'manual')"


def of_organization(name: str, column: str, target: str) -> ForeignKeyConstraint:
    """A reference within one organization: nothing can point into another's rows."""
    return ForeignKeyConstraint(
        ["organization_id", column],
        [f"{target}.organization_id", f"{target}.id"],
        name=f"fk_{name}_{column}",
    )


class Organization(Base):
    """The paying tenant, its settings, and how many facts of each topic it has (gap-free)."""

    __tablename__ = "organizations"
    __table_args__ = (
        CheckConstraint("billing_anchor_day BETWEEN 1 AND 31", name="anchor_day"),
        CheckConstraint("funding_group IN ('member', 'website')", name="funding_group"),
        CheckConstraint("credit_price_micro >= 0", name="credit_price"),
    )

    id: Mapped[str] = mapped_column(ID, primary_key=True)
    name: Mapped[str] = mapped_column(NAME)
    funding_group: Mapped[str] = mapped_column(String(16), default="member")
    credit_price_micro: Mapped[int] = mapped_column(SERIAL, default=10_000)
    currency: Mapped[str] = mapped_column(String(3), default="USD")
    billing_anchor_day: Mapped[int] = mapped_column(default=1)
    time_zone: Mapped[str] = mapped_column(String(64), default="UTC")
    created_at: Mapped[datetime]
    updated_at: Mapped[datetime]
    memberships_version: Mapped[int] = mapped_column(SERIAL, default=0)
    credits_version: Mapped[int] = mapped_column(SERIAL, default=0)


class Member(Base):
    """A person or service account. Removed and deactivated ones stay, for their history.

    `email` is NULL once the person is erased. `scim` holds what the identity provider sent,
    untransformed; it is NULL for members who did not come by SCIM.
    """

    __tablename__ = "members"
    __table_args__ = (
        Index("uq_members_email", "organization_id", "email_folded", unique=True),
        Index("uq_members_user_name", "organization_id", "user_name_folded", unique=True),
        Index("ix_members_external_id", "organization_id", "external_id"),
        # Counting who is there must not read the rows: SCIM documents make them wide.
        Index("ix_members_present", "organization_id", "active", "removed_at"),
        CheckConstraint("kind IN ('person', 'service_account')", name="kind"),
        CheckConstraint("role IN ('owner', 'admin', 'member')", name="role"),
    )

    organization_id: Mapped[str] = mapped_column(
        ID, ForeignKey("organizations.id"), primary_key=True
    )
    id: Mapped[str] = mapped_column(ID, primary_key=True)
    kind: Mapped[str] = mapped_column(String(16), default="person")
    email: Mapped[str | None] = mapped_column(NAME)
    email_folded: Mapped[str | None] = mapped_column(FOLDED)
    name: Mapped[str] = mapped_column(NAME, default="")
    role: Mapped[str] = mapped_column(String(16), default="member")
    active: Mapped[bool] = mapped_column(default=True)
    removed_at: Mapped[datetime | None]
    erased_at: Mapped[datetime | None]
    user_name: Mapped[str | None] = mapped_column(NAME)
    user_name_folded: Mapped[str | None] = mapped_column(FOLDED)
    external_id: Mapped[str | None] = mapped_column(NAME)
    scim: Mapped[JsonObject | None]
    created_at: Mapped[datetime]
    updated_at: Mapped[datetime]


class MemberAlias(Base):
    """An address under which a member's usage may arrive; it belongs to one member."""

    __tablename__ = "member_aliases"
    __table_args__ = (
        of_organization("member_aliases", "member_id", "members"),
        Index("ix_member_aliases_member", "organization_id", "member_id"),
    )

    organization_id: Mapped[str] = mapped_column(ID, primary_key=True)
    alias_folded: Mapped[str] = mapped_column(FOLDED, primary_key=True)
    alias: Mapped[str] = mapped_column(NAME)
    member_id: Mapped[str] = mapped_column(ID)


class LostAlias(Base):
    """An alias that the pipeline has and of which only the hash is known here: facts were
    imported after an older backup was restored. Usually empty."""

    __tablename__ = "lost_aliases"
    __table_args__ = (of_organization("lost_aliases", "member_id", "members"),)

    organization_id: Mapped[str] = mapped_column(ID, primary_key=True)
    alias_hash: Mapped[str] = mapped_column(String(64), primary_key=True)
    member_id: Mapped[str] = mapped_column(ID)


class DirectoryGroup(Base):
    """A group of the identity provider, as SCIM tells it."""

    __tablename__ = "directory_groups"
    __table_args__ = (
        Index("uq_directory_groups_name", "organization_id", "name_folded", unique=True),
        Index("ix_directory_groups_external_id", "organization_id", "external_id"),
    )

    organization_id: Mapped[str] = mapped_column(
        ID, ForeignKey("organizations.id"), primary_key=True
    )
    id: Mapped[str] = mapped_column(ID, primary_key=True)
    name: Mapped[str] = mapped_column(NAME)
    name_folded: Mapped[str] = mapped_column(FOLDED)
    external_id: Mapped[str | None] = mapped_column(NAME)
    created_at: Mapped[datetime]
    updated_at: Mapped[datetime]


class DirectoryMembership(Base):
    """A member may be in any number of directory groups; `joined_at` decides which came first."""

    __tablename__ = "directory_memberships"
    __table_args__ = (
        of_organization("directory_memberships", "directory_group_id", "directory_groups"),
        of_organization("directory_memberships", "member_id", "members"),
        Index("ix_directory_memberships_member", "organization_id", "member_id"),
    )

    organization_id: Mapped[str] = mapped_column(ID, primary_key=True)
    directory_group_id: Mapped[str] = mapped_column(ID, primary_key=True)
    member_id: Mapped[str] = mapped_column(ID, primary_key=True)
    joined_at: Mapped[datetime]


class BillingGroup(Base):
    """A billing group. Unassigned is none: it is the absence of a membership.

    `name_conflict` is the name that the synced directory group has but that was taken here.
    """

    __tablename__ = "billing_groups"
    __table_args__ = (
        of_organization("billing_groups", "directory_group_id", "directory_groups"),
        CheckConstraint(f"id <> '{UNASSIGNED}'", name="not_unassigned"),
        CheckConstraint("name_folded <> 'unassigned'", name="name_not_unassigned"),
        CheckConstraint(f"configured_by IN {HOW}", name="configured_by"),
        CheckConstraint(
            "(directory_group_id IS NULL) = (synced_at IS NULL)", name="synced_since_when"
        ),
        CheckConstraint(
            "deleted_at IS NULL OR directory_group_id IS NULL", name="deleted_unsynced"
        ),
        Index(
            "uq_billing_groups_name",
            "organization_id",
            "name_folded",
            unique=True,
            sqlite_where=LIVE,
            postgresql_where=LIVE,
        ),
        Index("uq_billing_groups_directory", "organization_id", "directory_group_id", unique=True),
    )

    organization_id: Mapped[str] = mapped_column(
        ID, ForeignKey("organizations.id"), primary_key=True
    )
    id: Mapped[str] = mapped_column(ID, primary_key=True)
    name: Mapped[str] = mapped_column(NAME)
    name_folded: Mapped[str] = mapped_column(FOLDED)
    configured_by: Mapped[str] = mapped_column(String(8))
    directory_group_id: Mapped[str | None] = mapped_column(ID)
    synced_at: Mapped[datetime | None]
    name_conflict: Mapped[str | None] = mapped_column(NAME)
    created_at: Mapped[datetime]
    updated_at: Mapped[datetime]
    deleted_at: Mapped[datetime | None]


class GroupName(Base):
    """Every name that a group had, from when to when, so that old reports can be explained."""

    __tablename__ = "group_names"
    __table_args__ = (
        of_organization("group_names", "group_id", "billing_groups"),
        Index("ix_group_names_group", "organization_id", "group_id"),
    )

    id: Mapped[int] = mapped_column(SERIAL, primary_key=True)
    organization_id: Mapped[str] = mapped_column(ID)
    group_id: Mapped[str] = mapped_column(ID)
    name: Mapped[str] = mapped_column(NAME)
    valid_from: Mapped[datetime]
    valid_to: Mapped[datetime | None]


class Membership(Base):
    """The one group of a member. The primary key is the rule: one group per member."""

    __tablename__ = "memberships"
    __table_args__ = (
        of_organization("memberships", "member_id", "members"),
        of_organization("memberships", "group_id", "billing_groups"),
        CheckConstraint(f"how IN {HOW}", name="how"),
        Index("ix_memberships_group", "organization_id", "group_id"),
    )

    organization_id: Mapped[str] = mapped_column(ID, primary_key=True)
    member_id: Mapped[str] = mapped_column(ID, primary_key=True)
    group_id: Mapped[str] = mapped_column(ID)
    joined_at: Mapped[datetime]
    how: Mapped[str] = mapped_column(String(8))


class FormerMembership(Base):
    """A membership that ended: who was where, from when to when (half-open)."""

    __tablename__ = "former_memberships"
    __table_args__ = (
        Index("ix_former_memberships_group", "organization_id", "group_id", "left_at"),
        Index("ix_former_memberships_member", "organization_id", "member_id"),
    )

    id: Mapped[int] = mapped_column(SERIAL, primary_key=True)
    organization_id: Mapped[str] = mapped_column(ID)
    member_id: Mapped[str] = mapped_column(ID)
    group_id: Mapped[str] = mapped_column(ID)
    joined_at: Mapped[datetime]
    left_at: Mapped[datetime]
    how: Mapped[str] = mapped_column(String(8))


class Website(Base):
    """A property that usage may be for; it belongs to one group, or none (NULL: Unassigned)."""

    __tablename__ = "websites"
    __table_args__ = (of_organization("websites", "group_id", "billing_groups"),)

    organization_id: Mapped[str] = mapped_column(
        ID, ForeignKey("organizations.id"), primary_key=True
    )
    id: Mapped[str] = mapped_column(ID, primary_key=True)
    name: Mapped[str] = mapped_column(NAME)
    group_id: Mapped[str | None] = mapped_column(ID)
    created_at: Mapped[datetime]
    updated_at: Mapped[datetime]
