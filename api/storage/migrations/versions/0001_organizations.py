"""Organizations, members, groups, memberships, directories, websites."""

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None

ID = sa.String(256)
NAME = sa.String(255)
FOLDED = sa.String(765)
SERIAL = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
UTC_TIME = sa.DateTime(timezone=True)


def upgrade() -> None:
    _organizations()
    _former_memberships()
    _directory_groups()
    _members()
    _billing_groups()
    _directory_memberships()
    _member_aliases()
    _group_names()
    _memberships()
    _websites()


def _organizations() -> None:
    op.create_table(
        "organizations",
        sa.Column("id", ID, nullable=False),
        sa.Column("name", NAME, nullable=False),
        sa.Column("funding_group", sa.String(length=16), nullable=False),
        sa.Column("credit_price_micro", SERIAL, nullable=False),
        sa.Column("currency", sa.String(length=3), nullable=False),
        sa.Column("billing_anchor_day", sa.Integer(), nullable=False),
        sa.Column("time_zone", sa.String(length=64), nullable=False),
        sa.Column("created_at", UTC_TIME, nullable=False),
        sa.Column("updated_at", UTC_TIME, nullable=False),
        sa.Column("memberships_version", SERIAL, nullable=False),
        sa.Column("credits_version", SERIAL, nullable=False),
        sa.CheckConstraint(
            "funding_group IN ('member', 'website')", name="ck_organizations_funding_group"
        ),
        sa.CheckConstraint(
            "billing_anchor_day BETWEEN 1 AND 31", name="ck_organizations_anchor_day"
        ),
        sa.CheckConstraint("credit_price_micro >= 0", name="ck_organizations_credit_price"),
        sa.PrimaryKeyConstraint("id", name="pk_organizations"),
    )


def _former_memberships() -> None:
    op.create_table(
        "former_memberships",
        sa.Column("id", SERIAL, nullable=False),
        sa.Column("organization_id", ID, nullable=False),
        sa.Column("member_id", ID, nullable=False),
        sa.Column("group_id", ID, nullable=False),
        sa.Column("joined_at", UTC_TIME, nullable=False),
        sa.Column("left_at", UTC_TIME, nullable=False),
        sa.Column("how", sa.String(length=8), nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_former_memberships"),
    )
    op.create_index(
        "ix_former_memberships_group",
        "former_memberships",
        ["organization_id", "group_id", "left_at"],
        unique=False,
    )
    op.create_index(
        "ix_former_memberships_member",
        "former_memberships",
        ["organization_id", "member_id"],
        unique=False,
    )


def _directory_groups() -> None:
    op.create_table(
        "directory_groups",
        sa.Column("organization_id", ID, nullable=False),
        sa.Column("id", ID, nullable=False),
        sa.Column("name", NAME, nullable=False),
        sa.Column("name_folded", FOLDED, nullable=False),
        sa.Column("external_id", NAME, nullable=True),
        sa.Column("created_at", UTC_TIME, nullable=False),
        sa.Column("updated_at", UTC_TIME, nullable=False),
        sa.ForeignKeyConstraint(
            ["organization_id"], ["organizations.id"], name="fk_directory_groups_organization_id"
        ),
        sa.PrimaryKeyConstraint("organization_id", "id", name="pk_directory_groups"),
    )
    op.create_index(
        "ix_directory_groups_external_id",
        "directory_groups",
        ["organization_id", "external_id"],
        unique=False,
    )
    op.create_index(
        "uq_directory_groups_name",
        "directory_groups",
        ["organization_id", "name_folded"],
        unique=True,
    )


def _members() -> None:
    op.create_table(
        "members",
        sa.Column("organization_id", ID, nullable=False),
        sa.Column("id", ID, nullable=False),
        sa.Column("kind", sa.String(length=16), nullable=False),
        sa.Column("email", NAME, nullable=True),
        sa.Column("email_folded", FOLDED, nullable=True),
        sa.Column("name", NAME, nullable=False),
        sa.Column("role", sa.String(length=16), nullable=False),
        sa.Column("active", sa.Boolean(), nullable=False),
        sa.Column("removed_at", UTC_TIME, nullable=True),
        sa.Column("erased_at", UTC_TIME, nullable=True),
        sa.Column("user_name", NAME, nullable=True),
        sa.Column("user_name_folded", FOLDED, nullable=True),
        sa.Column("external_id", NAME, nullable=True),
        sa.Column("scim", sa.JSON(none_as_null=True), nullable=True),
        sa.Column("created_at", UTC_TIME, nullable=False),
        sa.Column("updated_at", UTC_TIME, nullable=False),
        sa.CheckConstraint("kind IN ('person', 'service_account')", name="ck_members_kind"),
        sa.CheckConstraint("role IN ('owner', 'admin', 'member')", name="ck_members_role"),
        sa.ForeignKeyConstraint(
            ["organization_id"], ["organizations.id"], name="fk_members_organization_id"
        ),
        sa.PrimaryKeyConstraint("organization_id", "id", name="pk_members"),
    )
    op.create_index(
        "ix_members_external_id", "members", ["organization_id", "external_id"], unique=False
    )
    op.create_index(
        "ix_members_present", "members", ["organization_id", "active", "removed_at"], unique=False
    )
    op.create_index("uq_members_email", "members", ["organization_id", "email_folded"], unique=True)
    op.create_index(
        "uq_members_user_name", "members", ["organization_id", "user_name_folded"], unique=True
    )


def _billing_groups() -> None:
    op.create_table(
        "billing_groups",
        sa.Column("organization_id", ID, nullable=False),
        sa.Column("id", ID, nullable=False),
        sa.Column("name", NAME, nullable=False),
        sa.Column("name_folded", FOLDED, nullable=False),
        sa.Column("configured_by", sa.String(length=8), nullable=False),
        sa.Column("directory_group_id", ID, nullable=True),
        sa.Column("synced_at", UTC_TIME, nullable=True),
        sa.Column("name_conflict", NAME, nullable=True),
        sa.Column("created_at", UTC_TIME, nullable=False),
        sa.Column("updated_at", UTC_TIME, nullable=False),
        sa.Column("deleted_at", UTC_TIME, nullable=True),
        sa.CheckConstraint(
            "configured_by IN ('scim', 'api', 'csv', 'manual')",
            name="ck_billing_groups_configured_by",
        ),
        sa.CheckConstraint("id <> 'group_unassigned'", name="ck_billing_groups_not_unassigned"),
        sa.CheckConstraint(
            "name_folded <> 'unassigned'", name="ck_billing_groups_name_not_unassigned"
        ),
        sa.CheckConstraint(
            "(directory_group_id IS NULL) = (synced_at IS NULL)",
            name="ck_billing_groups_synced_since_when",
        ),
        sa.CheckConstraint(
            "deleted_at IS NULL OR directory_group_id IS NULL",
            name="ck_billing_groups_deleted_unsynced",
        ),
        sa.ForeignKeyConstraint(
            ["organization_id", "directory_group_id"],
            ["directory_groups.organization_id", "directory_groups.id"],
            name="fk_billing_groups_directory_group_id",
        ),
        sa.ForeignKeyConstraint(
            ["organization_id"], ["organizations.id"], name="fk_billing_groups_organization_id"
        ),
        sa.PrimaryKeyConstraint("organization_id", "id", name="pk_billing_groups"),
    )
    op.create_index(
        "uq_billing_groups_directory",
        "billing_groups",
        ["organization_id", "directory_group_id"],
        unique=True,
    )
    op.create_index(
        "uq_billing_groups_name",
        "billing_groups",
        ["organization_id", "name_folded"],
        unique=True,
        sqlite_where=sa.text("deleted_at IS NULL"),
        postgresql_where=sa.text("deleted_at IS NULL"),
    )


def _directory_memberships() -> None:
    op.create_table(
        "directory_memberships",
        sa.Column("organization_id", ID, nullable=False),
        sa.Column("directory_group_id", ID, nullable=False),
        sa.Column("member_id", ID, nullable=False),
        sa.Column("joined_at", UTC_TIME, nullable=False),
        sa.ForeignKeyConstraint(
            ["organization_id", "directory_group_id"],
            ["directory_groups.organization_id", "directory_groups.id"],
            name="fk_directory_memberships_directory_group_id",
        ),
        sa.ForeignKeyConstraint(
            ["organization_id", "member_id"],
            ["members.organization_id", "members.id"],
            name="fk_directory_memberships_member_id",
        ),
        sa.PrimaryKeyConstraint(
            "organization_id", "directory_group_id", "member_id", name="pk_directory_memberships"
        ),
    )
    op.create_index(
        "ix_directory_memberships_member",
        "directory_memberships",
        ["organization_id", "member_id"],
        unique=False,
    )


def _member_aliases() -> None:
    op.create_table(
        "member_aliases",
        sa.Column("organization_id", ID, nullable=False),
        sa.Column("alias_folded", FOLDED, nullable=False),
        sa.Column("alias", NAME, nullable=False),
        sa.Column("member_id", ID, nullable=False),
        sa.ForeignKeyConstraint(
            ["organization_id", "member_id"],
            ["members.organization_id", "members.id"],
            name="fk_member_aliases_member_id",
        ),
        sa.PrimaryKeyConstraint("organization_id", "alias_folded", name="pk_member_aliases"),
    )
    op.create_index(
        "ix_member_aliases_member", "member_aliases", ["organization_id", "member_id"], unique=False
    )


def _group_names() -> None:
    op.create_table(
        "group_names",
        sa.Column("id", SERIAL, nullable=False),
        sa.Column("organization_id", ID, nullable=False),
        sa.Column("group_id", ID, nullable=False),
        sa.Column("name", NAME, nullable=False),
        sa.Column("valid_from", UTC_TIME, nullable=False),
        sa.Column("valid_to", UTC_TIME, nullable=True),
        sa.ForeignKeyConstraint(
            ["organization_id", "group_id"],
            ["billing_groups.organization_id", "billing_groups.id"],
            name="fk_group_names_group_id",
        ),
        sa.PrimaryKeyConstraint("id", name="pk_group_names"),
    )
    op.create_index(
        "ix_group_names_group", "group_names", ["organization_id", "group_id"], unique=False
    )


def _memberships() -> None:
    op.create_table(
        "memberships",
        sa.Column("organization_id", ID, nullable=False),
        sa.Column("member_id", ID, nullable=False),
        sa.Column("group_id", ID, nullable=False),
        sa.Column("joined_at", UTC_TIME, nullable=False),
        sa.Column("how", sa.String(length=8), nullable=False),
        sa.CheckConstraint("how IN ('scim', 'api', 'csv', 'manual')", name="ck_memberships_how"),
        sa.ForeignKeyConstraint(
            ["organization_id", "group_id"],
            ["billing_groups.organization_id", "billing_groups.id"],
            name="fk_memberships_group_id",
        ),
        sa.ForeignKeyConstraint(
            ["organization_id", "member_id"],
            ["members.organization_id", "members.id"],
            name="fk_memberships_member_id",
        ),
        sa.PrimaryKeyConstraint("organization_id", "member_id", name="pk_memberships"),
    )
    op.create_index(
        "ix_memberships_group", "memberships", ["organization_id", "group_id"], unique=False
    )


def _websites() -> None:
    op.create_table(
        "websites",
        sa.Column("organization_id", ID, nullable=False),
        sa.Column("id", ID, nullable=False),
        sa.Column("name", NAME, nullable=False),
        sa.Column("group_id", ID, nullable=True),
        sa.Column("created_at", UTC_TIME, nullable=False),
        sa.Column("updated_at", UTC_TIME, nullable=False),
        sa.ForeignKeyConstraint(
            ["organization_id", "group_id"],
            ["billing_groups.organization_id", "billing_groups.id"],
            name="fk_websites_group_id",
        ),
        sa.ForeignKeyConstraint(
            ["organization_id"], ["organizations.id"], name="fk_websites_organization_id"
        ),
        sa.PrimaryKeyConstraint("organization_id", "id", name="pk_websites"),
    )
