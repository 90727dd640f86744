"""Credits that are bought: packages, billing profiles, purchases, invoices, provider events."""

import sqlalchemy as sa
from alembic import op

revision = "0008"
down_revision = "0007"
branch_labels = None
depends_on = None

ID = sa.String(256)
NAME = sa.String(255)
SERIAL = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
UTC_TIME = sa.DateTime(timezone=True)


def upgrade() -> None:
    _packages()
    _provider_cursors()
    _provider_events()
    _unmatched_payments()
    _billing_profiles()
    _purchases()
    _indexes_of_purchases()
    _bought_grants()
    _invoices()
    _subscriptions()


def _packages() -> None:
    op.create_table(
        "packages",
        sa.Column("id", ID, nullable=False),
        sa.Column("name", NAME, nullable=False),
        sa.Column("credits_micro", SERIAL, nullable=False),
        sa.Column("price_minor", SERIAL, nullable=False),
        sa.Column("currency", sa.String(length=3), nullable=False),
        sa.Column("sold_one_time", sa.Boolean(), nullable=False),
        sa.Column("sold_monthly", sa.Boolean(), nullable=False),
        sa.Column("stripe_one_time_price_id", ID, nullable=True),
        sa.Column("stripe_monthly_price_id", ID, nullable=True),
        sa.Column("created_at", UTC_TIME, nullable=False),
        sa.Column("updated_at", UTC_TIME, nullable=False),
        sa.Column("retired_at", UTC_TIME, nullable=True),
        sa.CheckConstraint("credits_micro > 0", name="ck_packages_credits"),
        sa.CheckConstraint("price_minor > 0", name="ck_packages_price"),
        sa.CheckConstraint(
            "sold_one_time OR sold_monthly OR retired_at IS NOT NULL", name="ck_packages_sold"
        ),
        sa.PrimaryKeyConstraint("id", name="pk_packages"),
    )


def _provider_cursors() -> None:
    op.create_table(
        "provider_cursors",
        sa.Column("provider", sa.String(length=64), nullable=False),
        sa.Column("changed_until", UTC_TIME, nullable=False),
        sa.Column("reconciled_at", UTC_TIME, nullable=False),
        sa.PrimaryKeyConstraint("provider", name="pk_provider_cursors"),
    )


def _provider_events() -> None:
    op.create_table(
        "provider_events",
        sa.Column("provider", sa.String(length=64), nullable=False),
        sa.Column("id", ID, nullable=False),
        sa.Column("type", sa.String(length=128), nullable=False),
        sa.Column("object_kind", sa.String(length=64), nullable=False),
        sa.Column("object_id", ID, nullable=False),
        sa.Column("body", sa.LargeBinary(), nullable=False),
        sa.Column("created_at", UTC_TIME, nullable=False),
        sa.Column("received_at", UTC_TIME, nullable=False),
        sa.Column("processed_at", UTC_TIME, nullable=True),
        sa.Column("attempts", sa.Integer(), nullable=False),
        sa.Column("next_attempt_at", UTC_TIME, nullable=False),
        sa.Column("problem", sa.String(length=512), nullable=False),
        sa.PrimaryKeyConstraint("provider", "id", name="pk_provider_events"),
    )
    op.create_index("ix_provider_events_received", "provider_events", ["received_at"], unique=False)
    op.create_index(
        "ix_provider_events_waiting",
        "provider_events",
        ["next_attempt_at"],
        unique=False,
        sqlite_where=sa.text("processed_at IS NULL"),
        postgresql_where=sa.text("processed_at IS NULL"),
    )


def _unmatched_payments() -> None:
    op.create_table(
        "unmatched_payments",
        sa.Column("provider", sa.String(length=64), nullable=False),
        sa.Column("object_kind", sa.String(length=64), nullable=False),
        sa.Column("object_id", ID, nullable=False),
        sa.Column("code", sa.String(length=64), nullable=False),
        sa.Column("message", sa.String(length=1024), nullable=False),
        sa.Column("organization_id", ID, nullable=True),
        sa.Column("purchase_id", ID, nullable=True),
        sa.Column("since", UTC_TIME, nullable=False),
        sa.PrimaryKeyConstraint(
            "provider", "object_kind", "object_id", name="pk_unmatched_payments"
        ),
    )


def _billing_profiles() -> None:
    op.create_table(
        "billing_profiles",
        sa.Column("organization_id", ID, nullable=False),
        sa.Column("id", ID, nullable=False),
        sa.Column("pool_kind", sa.String(length=16), nullable=False),
        sa.Column("pool_id", ID, nullable=False),
        sa.Column("provider", sa.String(length=64), nullable=False),
        sa.Column("stripe_customer_id", ID, nullable=True),
        sa.Column("created_at", UTC_TIME, nullable=False),
        sa.Column("closed_at", UTC_TIME, nullable=True),
        sa.CheckConstraint(
            "(provider = 'stripe') OR (stripe_customer_id IS NULL)",
            name="ck_billing_profiles_customer",
        ),
        sa.CheckConstraint(
            "pool_kind IN ('website', 'group')", name="ck_billing_profiles_pool_kind"
        ),
        sa.ForeignKeyConstraint(
            ["organization_id"], ["organizations.id"], name="fk_billing_profiles_organization_id"
        ),
        sa.PrimaryKeyConstraint("organization_id", "id", name="pk_billing_profiles"),
        sa.UniqueConstraint("stripe_customer_id", name="uq_billing_profiles_stripe_customer_id"),
    )
    op.create_index(
        "uq_billing_profiles_pool",
        "billing_profiles",
        ["organization_id", "pool_kind", "pool_id"],
        unique=True,
        sqlite_where=sa.text("closed_at IS NULL"),
        postgresql_where=sa.text("closed_at IS NULL"),
    )


def _purchases() -> None:
    op.create_table(
        "purchases",
        sa.Column("organization_id", ID, nullable=False),
        sa.Column("id", ID, nullable=False),
        sa.Column("profile_id", ID, nullable=False),
        sa.Column("provider", sa.String(length=64), nullable=False),
        sa.Column("package_id", ID, nullable=False),
        sa.Column("package_name", NAME, nullable=False),
        sa.Column("kind", sa.String(length=16), nullable=False),
        sa.Column("quantity", sa.Integer(), nullable=False),
        sa.Column("package_credits_micro", SERIAL, nullable=False),
        sa.Column("package_price_minor", SERIAL, nullable=False),
        sa.Column("currency", sa.String(length=3), nullable=False),
        sa.Column("stripe_price_id", ID, nullable=True),
        sa.Column("state", sa.String(length=16), nullable=False),
        sa.Column("message", sa.String(length=512), nullable=False),
        sa.Column("session_id", ID, nullable=True),
        sa.Column("checkout_url", sa.String(length=2048), nullable=True),
        sa.Column("payment_intent_id", ID, nullable=True),
        sa.Column("bought_by", ID, nullable=False),
        sa.Column("created_at", UTC_TIME, nullable=False),
        sa.Column("updated_at", UTC_TIME, nullable=False),
        sa.Column("revision", SERIAL, nullable=False),
        sa.Column("look_at", UTC_TIME, nullable=True),
        sa.Column("looks_failed", sa.Integer(), nullable=False),
        sa.CheckConstraint("kind IN ('monthly', 'one_time')", name="ck_purchases_kind"),
        sa.CheckConstraint(
            "state IN ('created', 'awaiting_payment', 'paid', 'failed', 'expired')",
            name="ck_purchases_state",
        ),
        sa.CheckConstraint("package_credits_micro > 0", name="ck_purchases_credits"),
        sa.CheckConstraint("package_price_minor > 0", name="ck_purchases_price"),
        sa.CheckConstraint("quantity BETWEEN 1 AND 50", name="ck_purchases_quantity"),
        sa.ForeignKeyConstraint(
            ["organization_id", "profile_id"],
            ["billing_profiles.organization_id", "billing_profiles.id"],
            name="fk_purchases_profile_id",
        ),
        sa.ForeignKeyConstraint(
            ["organization_id"], ["organizations.id"], name="fk_purchases_organization_id"
        ),
        sa.ForeignKeyConstraint(["package_id"], ["packages.id"], name="fk_purchases_package_id"),
        sa.PrimaryKeyConstraint("organization_id", "id", name="pk_purchases"),
        sa.UniqueConstraint("provider", "session_id", name="uq_purchases_session"),
    )


def _indexes_of_purchases() -> None:
    op.create_index(
        "ix_purchases_look",
        "purchases",
        ["look_at"],
        unique=False,
        sqlite_where=sa.text("look_at IS NOT NULL"),
        postgresql_where=sa.text("look_at IS NOT NULL"),
    )
    op.create_index("ix_purchases_payment", "purchases", ["payment_intent_id"], unique=False)
    op.create_index(
        "ix_purchases_profile",
        "purchases",
        ["organization_id", "profile_id", "created_at"],
        unique=False,
    )


def _bought_grants() -> None:
    op.create_table(
        "bought_grants",
        sa.Column("organization_id", ID, nullable=False),
        sa.Column("grant_id", ID, nullable=False),
        sa.Column("purchase_id", ID, nullable=False),
        sa.Column("provider", sa.String(length=64), nullable=False),
        sa.Column("session_id", ID, nullable=True),
        sa.Column("invoice_id", ID, nullable=True),
        sa.Column("line_id", ID, nullable=True),
        sa.Column("subscription_id", ID, nullable=True),
        sa.Column("period_start", UTC_TIME, nullable=True),
        sa.Column("dispute_id", ID, nullable=True),
        sa.Column("of_grant_id", ID, nullable=True),
        sa.CheckConstraint(
            "(session_id IS NOT NULL) OR (invoice_id IS NOT NULL AND line_id IS NOT NULL) OR "
            "(subscription_id IS NOT NULL AND period_start IS NOT NULL) OR "
            "(dispute_id IS NOT NULL)",
            name="ck_bought_grants_paid_by_something",
        ),
        sa.ForeignKeyConstraint(
            ["organization_id", "grant_id"],
            ["grants.organization_id", "grants.id"],
            name="fk_bought_grants_grant_id",
        ),
        sa.ForeignKeyConstraint(
            ["organization_id", "purchase_id"],
            ["purchases.organization_id", "purchases.id"],
            name="fk_bought_grants_purchase_id",
        ),
        sa.ForeignKeyConstraint(
            ["organization_id"], ["organizations.id"], name="fk_bought_grants_organization_id"
        ),
        sa.PrimaryKeyConstraint("organization_id", "grant_id", name="pk_bought_grants"),
        sa.UniqueConstraint(
            "provider", "dispute_id", "of_grant_id", name="uq_bought_grants_dispute"
        ),
        sa.UniqueConstraint("provider", "invoice_id", "line_id", name="uq_bought_grants_line"),
        sa.UniqueConstraint("provider", "session_id", name="uq_bought_grants_session"),
        sa.UniqueConstraint(
            "provider", "subscription_id", "period_start", name="uq_bought_grants_period"
        ),
    )
    op.create_index(
        "ix_bought_grants_purchase",
        "bought_grants",
        ["organization_id", "purchase_id"],
        unique=False,
    )


def _invoices() -> None:
    op.create_table(
        "invoices",
        sa.Column("organization_id", ID, nullable=False),
        sa.Column("provider", sa.String(length=64), nullable=False),
        sa.Column("provider_id", ID, nullable=False),
        sa.Column("purchase_id", ID, nullable=False),
        sa.Column("number", NAME, nullable=False),
        sa.Column("status", sa.String(length=32), nullable=False),
        sa.Column("billing_reason", sa.String(length=64), nullable=False),
        sa.Column("currency", sa.String(length=3), nullable=False),
        sa.Column("amount_paid_minor", SERIAL, nullable=False),
        sa.Column("amount_refunded_minor", SERIAL, nullable=False),
        sa.Column("credits_micro", SERIAL, nullable=False),
        sa.Column("period_start", UTC_TIME, nullable=True),
        sa.Column("period_end", UTC_TIME, nullable=True),
        sa.Column("created_at", UTC_TIME, nullable=False),
        sa.Column("paid_at", UTC_TIME, nullable=True),
        sa.Column("hosted_invoice_url", sa.String(length=2048), nullable=True),
        sa.Column("invoice_pdf", sa.String(length=2048), nullable=True),
        sa.ForeignKeyConstraint(
            ["organization_id", "purchase_id"],
            ["purchases.organization_id", "purchases.id"],
            name="fk_invoices_purchase_id",
        ),
        sa.ForeignKeyConstraint(
            ["organization_id"], ["organizations.id"], name="fk_invoices_organization_id"
        ),
        sa.PrimaryKeyConstraint("organization_id", "provider", "provider_id", name="pk_invoices"),
        sa.UniqueConstraint("provider", "provider_id", name="uq_invoices_provider"),
    )
    op.create_index(
        "ix_invoices_purchase",
        "invoices",
        ["organization_id", "purchase_id", "created_at"],
        unique=False,
    )


def _subscriptions() -> None:
    op.create_table(
        "subscriptions",
        sa.Column("organization_id", ID, nullable=False),
        sa.Column("purchase_id", ID, nullable=False),
        sa.Column("provider", sa.String(length=64), nullable=False),
        sa.Column("provider_id", ID, nullable=False),
        sa.Column("status", sa.String(length=32), nullable=False),
        sa.Column("cancel_at_period_end", sa.Boolean(), nullable=False),
        sa.Column("current_period_start", UTC_TIME, nullable=True),
        sa.Column("current_period_end", UTC_TIME, nullable=True),
        sa.Column("ended_at", UTC_TIME, nullable=True),
        sa.Column("updated_at", UTC_TIME, nullable=False),
        sa.ForeignKeyConstraint(
            ["organization_id", "purchase_id"],
            ["purchases.organization_id", "purchases.id"],
            name="fk_subscriptions_purchase_id",
        ),
        sa.ForeignKeyConstraint(
            ["organization_id"], ["organizations.id"], name="fk_subscriptions_organization_id"
        ),
        sa.PrimaryKeyConstraint("organization_id", "purchase_id", name="pk_subscriptions"),
        sa.UniqueConstraint("provider", "provider_id", name="uq_subscriptions_provider"),
    )
    op.create_index(
        "ix_subscriptions_period_end", "subscriptions", ["current_period_end"], unique=False
    )
