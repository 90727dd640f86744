"""What was written: rows, and what a worker makes of the facts."""

from sqlalchemy import func, select

from api.payments.settling import PurchaseKey
from api.rules.change import Control
from api.storage.ledgers import OutboxFact
from api.storage.purchases import BoughtGrant, Purchase, Unmatched
from tests.decisions.worker import Worker


def rows(control: Control, model: type) -> int:
    with control.store.read() as session:
        return session.scalar(select(func.count()).select_from(model)) or 0


def unmatched(control: Control) -> dict[str, str]:
    """Code and message of each object."""
    with control.store.read() as session:
        listed = session.scalars(select(Unmatched).order_by(Unmatched.object_id))
        return {
            f"{row.object_kind} {row.object_id}": f"{row.code}: {row.message}" for row in listed
        }


def bought(control: Control) -> dict[str, tuple[str | None, ...]]:
    """Of each grant what paid for it: session, invoice and line, dispute and grant."""
    with control.store.read() as session:
        return {
            row.grant_id: (
                row.purchase_id,
                row.session_id,
                row.invoice_id,
                row.line_id,
                row.dispute_id,
                row.of_grant_id,
            )
            for row in session.scalars(select(BoughtGrant))
        }


def purchase_row(control: Control, key: PurchaseKey) -> Purchase:
    with control.store.read() as session:
        return session.get_one(Purchase, (key.organization_id, key.purchase_id))


def worker_of(control: Control) -> Worker:
    """A worker that was sent everything; it must have refused nothing."""
    worker = Worker()
    tell(worker, control)
    return worker


def tell(worker: Worker, control: Control, after: int = 0) -> int:
    """Sends it what the outbox has beyond a row; the last row."""
    with control.store.read() as session:
        facts = select(OutboxFact).where(OutboxFact.id > after).order_by(OutboxFact.id)
        for row in session.scalars(facts):
            worker.now = row.created_at
            outcome = worker.receive_fact(row.topic, row.payload, row.organization_id.encode())
            assert outcome.rejected is None, outcome.rejected
            assert outcome.applied is not None
            after = row.id
    return after


def left_in_pool(control: Control, group_id: str = "group_a") -> int:
    return worker_of(control).pool("group", group_id, "org_a").balance_micro
