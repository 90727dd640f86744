"""Aliases of which an import of facts knows only the hash."""

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None

ID = sa.String(256)


def upgrade() -> None:
    op.create_table(
        "lost_aliases",
        sa.Column("organization_id", ID, nullable=False),
        sa.Column("alias_hash", sa.String(length=64), nullable=False),
        sa.Column("member_id", ID, nullable=False),
        sa.ForeignKeyConstraint(
            ["organization_id", "member_id"],
            ["members.organization_id", "members.id"],
            name="fk_lost_aliases_member_id",
        ),
        sa.PrimaryKeyConstraint("organization_id", "alias_hash", name="pk_lost_aliases"),
    )
