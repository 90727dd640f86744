"""Every key expires; those that were made for ever, a year from now."""

from datetime import UTC, datetime, timedelta

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None

UTC_TIME = sa.DateTime(timezone=True)


def upgrade() -> None:
    keys = sa.table("api_keys", sa.column("expires_at", UTC_TIME))
    in_a_year = datetime.now(UTC) + timedelta(days=365)
    if op.get_bind().dialect.name == "sqlite":
        # Times are kept there without their zone, which is always UTC.
        in_a_year = in_a_year.replace(tzinfo=None)
    op.execute(keys.update().where(keys.c.expires_at.is_(None)).values(expires_at=in_a_year))
    # SQLite makes the table anew, and its constraints keep their names that way.
    names = {"ck": "%(constraint_name)s"}
    with op.batch_alter_table("api_keys", naming_convention=names) as table:
        table.alter_column("expires_at", existing_type=UTC_TIME, nullable=False)
