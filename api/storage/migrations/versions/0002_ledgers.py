"""Prices, grants, keys, audit log, idempotency, outbox."""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None

ID = sa.String(256)
NAME = sa.String(255)
SERIAL = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
UTC_TIME = sa.DateTime(timezone=True)


def upgrade() -> None:
    _audit_log()
    _dimension_changes()
    _idempotency_keys()
    _publishing_halts()
    _topic_positions()
    _api_keys()
    _grants()
    _outbox()
    _prices()


def _audit_log() -> None:
    op.create_table(
        "audit_log",
        sa.Column("id", SERIAL, nullable=False),
        sa.Column("organization_id", ID, nullable=True),
        sa.Column("at", UTC_TIME, nullable=False),
        sa.Column("actor", ID, nullable=False),
        sa.Column("how", sa.String(length=8), nullable=False),
        sa.Column("action", sa.String(length=64), nullable=False),
        sa.Column("subject_kind", sa.String(length=32), nullable=False),
        sa.Column("subject_id", ID, nullable=False),
        sa.Column("before", sa.JSON(none_as_null=True), nullable=True),
        sa.Column("after", sa.JSON(none_as_null=True), nullable=True),
        sa.PrimaryKeyConstraint("id", name="pk_audit_log"),
    )
    op.create_index(
        "ix_audit_log_organization", "audit_log", ["organization_id", "id"], unique=False
    )
    op.create_index(
        "ix_audit_log_subject",
        "audit_log",
        ["organization_id", "subject_kind", "subject_id"],
        unique=False,
    )


def _dimension_changes() -> None:
    op.create_table(
        "dimension_changes",
        sa.Column("id", SERIAL, nullable=False),
        sa.Column("organization_id", ID, nullable=False),
        sa.Column("kind", sa.String(length=16), nullable=False),
        sa.Column("entity_id", ID, nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_dimension_changes"),
    )


def _idempotency_keys() -> None:
    op.create_table(
        "idempotency_keys",
        sa.Column("actor", ID, nullable=False),
        sa.Column("key", NAME, nullable=False),
        sa.Column("organization_id", ID, nullable=True),
        sa.Column("request_hash", sa.String(length=64), nullable=False),
        sa.Column("status", sa.Integer(), nullable=False),
        sa.Column("body", sa.LargeBinary(), nullable=False),
        sa.Column("created_at", UTC_TIME, nullable=False),
        sa.PrimaryKeyConstraint("actor", "key", name="pk_idempotency_keys"),
    )
    op.create_index("ix_idempotency_keys_created", "idempotency_keys", ["created_at"], unique=False)


def _publishing_halts() -> None:
    op.create_table(
        "publishing_halts",
        sa.Column("topic", sa.String(length=128), nullable=False),
        sa.Column("code", sa.String(length=32), nullable=False),
        sa.Column("message", sa.String(length=1024), nullable=False),
        sa.Column("since", UTC_TIME, nullable=False),
        sa.PrimaryKeyConstraint("topic", name="pk_publishing_halts"),
    )


def _topic_positions() -> None:
    op.create_table(
        "topic_positions",
        sa.Column("topic", sa.String(length=128), nullable=False),
        sa.Column("partition", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("next_offset", SERIAL, nullable=False),
        sa.PrimaryKeyConstraint("topic", "partition", name="pk_topic_positions"),
    )


def _api_keys() -> None:
    op.create_table(
        "api_keys",
        sa.Column("id", ID, nullable=False),
        sa.Column("organization_id", ID, nullable=True),
        sa.Column("scope", sa.String(length=16), nullable=False),
        sa.Column("name", NAME, nullable=False),
        sa.Column("secret_hash", sa.String(length=64), nullable=False),
        sa.Column("hint", sa.String(length=8), nullable=False),
        sa.Column("created_at", UTC_TIME, nullable=False),
        sa.Column("expires_at", UTC_TIME, nullable=True),
        sa.Column("revoked_at", UTC_TIME, nullable=True),
        sa.CheckConstraint(
            "CASE scope WHEN 'operator' THEN organization_id IS NULL "
            "WHEN 'ingest' THEN 1 = 1 ELSE organization_id IS NOT NULL END",
            name="ck_api_keys_bound_as_its_scope_says",
        ),
        sa.CheckConstraint(
            "scope IN ('operator', 'admin', 'group_admin', 'finance', 'ingest', 'scim')",
            name="ck_api_keys_scope",
        ),
        sa.ForeignKeyConstraint(
            ["organization_id"], ["organizations.id"], name="fk_api_keys_organization_id"
        ),
        sa.PrimaryKeyConstraint("id", name="pk_api_keys"),
        sa.UniqueConstraint("secret_hash", name="uq_api_keys_secret_hash"),
    )
    op.create_index("ix_api_keys_organization", "api_keys", ["organization_id"], unique=False)


def _grants() -> None:
    op.create_table(
        "grants",
        sa.Column("organization_id", ID, nullable=False),
        sa.Column("id", ID, nullable=False),
        sa.Column("pool_kind", sa.String(length=16), nullable=False),
        sa.Column("pool_id", ID, nullable=False),
        sa.Column("kind", sa.String(length=16), nullable=False),
        sa.Column("amount_micro", SERIAL, nullable=False),
        sa.Column("revoked_micro", SERIAL, nullable=False),
        sa.Column("source", sa.String(length=512), nullable=False),
        sa.Column("effective_at", UTC_TIME, nullable=False),
        sa.Column("expires_at", UTC_TIME, nullable=True),
        sa.Column("awaiting_payment", sa.Boolean(), nullable=False),
        sa.Column("created_at", UTC_TIME, nullable=False),
        sa.CheckConstraint(
            "kind <> 'monthly' OR expires_at IS NOT NULL", name="ck_grants_monthly_expires"
        ),
        sa.CheckConstraint("kind IN ('monthly', 'one_time')", name="ck_grants_kind"),
        sa.CheckConstraint("pool_kind IN ('website', 'group')", name="ck_grants_pool_kind"),
        sa.CheckConstraint("amount_micro > 0", name="ck_grants_amount"),
        sa.CheckConstraint("revoked_micro BETWEEN 0 AND amount_micro", name="ck_grants_revoked"),
        sa.ForeignKeyConstraint(
            ["organization_id"], ["organizations.id"], name="fk_grants_organization_id"
        ),
        sa.PrimaryKeyConstraint("organization_id", "id", name="pk_grants"),
    )


def _outbox() -> None:
    op.create_table(
        "outbox",
        sa.Column("id", SERIAL, nullable=False),
        sa.Column("organization_id", ID, nullable=False),
        sa.Column("topic", sa.String(length=16), nullable=False),
        sa.Column("version", SERIAL, nullable=False),
        sa.Column("payload", sa.LargeBinary(), nullable=False),
        sa.Column("created_at", UTC_TIME, nullable=False),
        sa.Column("published_at", UTC_TIME, nullable=True),
        sa.CheckConstraint("topic IN ('memberships', 'credits')", name="ck_outbox_topic"),
        sa.ForeignKeyConstraint(
            ["organization_id"], ["organizations.id"], name="fk_outbox_organization_id"
        ),
        sa.PrimaryKeyConstraint("id", name="pk_outbox"),
        sa.UniqueConstraint("organization_id", "topic", "version", name="uq_outbox_version"),
    )
    op.create_index(
        "ix_outbox_waiting",
        "outbox",
        ["id"],
        unique=False,
        sqlite_where=sa.text("published_at IS NULL"),
        postgresql_where=sa.text("published_at IS NULL"),
    )


def _prices() -> None:
    op.create_table(
        "prices",
        sa.Column("id", SERIAL, nullable=False),
        sa.Column("organization_id", ID, nullable=True),
        sa.Column("meter", ID, nullable=False),
        sa.Column("micro_per_million_units", SERIAL, nullable=False),
        sa.Column("effective_at", UTC_TIME, nullable=False),
        sa.Column("created_at", UTC_TIME, nullable=False),
        sa.CheckConstraint("micro_per_million_units >= 0", name="ck_prices_not_negative"),
        sa.ForeignKeyConstraint(
            ["organization_id"], ["organizations.id"], name="fk_prices_organization_id"
        ),
        sa.PrimaryKeyConstraint("id", name="pk_prices"),
    )
    op.create_index(
        "ix_prices_book", "prices", ["organization_id", "meter", "effective_at"], unique=False
    )
