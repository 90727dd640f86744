"""Every fact says what it adds a change to, so that changes are counted by an index; grants too."""

import sqlalchemy as sa
from alembic import op

revision = "0007"
down_revision = "0006"
branch_labels = None
depends_on = None

SUBJECTS = """
    UPDATE outbox SET subject = CASE {type}
        WHEN 'organization_created' THEN 'settings'
        WHEN 'organization_settings' THEN 'settings'
        WHEN 'member_assigned' THEN 'member:' || {member_id}
        WHEN 'member_removed' THEN 'member:' || {member_id}
        WHEN 'member_alias' THEN 'alias:' || {alias_hash}
        WHEN 'website_assigned' THEN 'website:' || {website_id}
        WHEN 'price_set' THEN COALESCE({book}, 'organization') || '_price:' || {meter}
        WHEN 'adjusted' THEN CASE WHEN CAST({amount_micro} AS NUMERIC) > 0
            THEN 'adjustment:' || {pool_kind} || ':' || {pool_id} END
    END
"""
FIELDS = (
    "type", "member_id", "alias_hash", "website_id", "book", "meter", "amount_micro", "pool_kind",
    "pool_id",
)  # fmt: skip


def upgrade() -> None:
    op.add_column("outbox", sa.Column("subject", sa.String(length=300), nullable=True))
    if op.get_bind().dialect.name == "sqlite":
        field = "json_extract(CAST(payload AS TEXT), '$.fact.{}')"
    else:
        field = "(convert_from(payload, 'UTF8')::json #>> '{{fact,{}}}')"
    # Not by sa.text, for which a colon begins a parameter.
    statement = SUBJECTS.format(**{name: field.format(name) for name in FIELDS})
    op.get_bind().exec_driver_sql(statement)
    op.create_index(
        "ix_outbox_subject",
        "outbox",
        ["organization_id", "subject"],
        sqlite_where=sa.text("subject IS NOT NULL"),
        postgresql_where=sa.text("subject IS NOT NULL"),
    )
    op.create_index(
        "ix_grants_live",
        "grants",
        ["organization_id", "pool_kind", "pool_id", "expires_at"],
        sqlite_where=sa.text("revoked_micro < amount_micro"),
        postgresql_where=sa.text("revoked_micro < amount_micro"),
    )
