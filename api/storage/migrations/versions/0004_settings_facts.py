"""Finding the few facts of an organization that tell its settings, for the billing calendar."""

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None

CREATED = b'"organization_created"'.hex()
CHANGED = b'"organization_settings"'.hex()


def upgrade() -> None:
    op.create_index(
        "ix_outbox_settings",
        "outbox",
        ["organization_id", "topic"],
        sqlite_where=sa.text(f"instr(payload, x'{CREATED}') + instr(payload, x'{CHANGED}') > 0"),
        postgresql_where=sa.text(
            f"position(decode('{CREATED}', 'hex') in payload) + "
            f"position(decode('{CHANGED}', 'hex') in payload) > 0"
        ),
    )
