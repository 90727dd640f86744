"""What Alembic runs: always on the connection that `api.storage.migrate` hands over."""

from alembic import context

from api.storage import ledgers, models, purchases
from api.storage.base import Base

assert (
    ledgers.OutboxFact.metadata
    is models.Organization.metadata
    is purchases.Purchase.metadata
    is Base.metadata
)

context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=Base.metadata,
    render_as_batch=True,
)
with context.begin_transaction():
    context.run_migrations()
