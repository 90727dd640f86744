"""A key of scope `group_admin` may be bound to one group."""

import sqlalchemy as sa
from alembic import op

revision = "0009"
down_revision = "0008"
branch_labels = None
depends_on = None


def upgrade() -> None:
    # SQLite makes the table anew, and its constraints keep their names that way.
    names = {"ck": "%(constraint_name)s"}
    with op.batch_alter_table("api_keys", naming_convention=names) as table:
        table.add_column(sa.Column("group_id", sa.String(length=256), nullable=True))
        table.create_check_constraint(
            "ck_api_keys_group", "group_id IS NULL OR scope = 'group_admin'"
        )
        table.create_foreign_key(
            "fk_api_keys_group_id",
            "billing_groups",
            ["organization_id", "group_id"],
            ["organization_id", "id"],
        )
