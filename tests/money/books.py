"""What the control plane has written about purchases, and how it is compared with the oracle."""

from collections import defaultdict
from dataclasses import dataclass

from sqlalchemy import select

from api.storage.ledgers import Grant
from api.storage.purchases import BoughtGrant, Invoice, Purchase, Subscription, Unmatched
from api.storage.store import Store
from tests.money.oracle import Objects, Sale, expected, session_of
from tests.money.worker import Worker


@dataclass(frozen=True)
class Written:
    """Of one purchase; credits are granted less revoked."""

    state: str
    session_id: str | None
    confirmed_micro: int
    awaiting_micro: int
    paid_invoices: frozenset[str]
    subscription: tuple[str, bool] | None


@dataclass(frozen=True)
class Books:
    purchases: dict[str, Written]
    unmatched: frozenset[tuple[str, str, str | None]]
    """Object, code, purchase."""
    pools: dict[tuple[str, str], int]
    """Granted less revoked, whatever paid for it."""


def read_books(store: Store) -> Books:
    with store.read() as session:
        purchases = session.scalars(select(Purchase)).all()
        subscriptions = {row.purchase_id: row for row in session.scalars(select(Subscription))}
        invoices = defaultdict(set)
        for invoice in session.scalars(select(Invoice).where(Invoice.status == "paid")):
            invoices[invoice.purchase_id].add(invoice.provider_id)
        grants = {grant.id: grant for grant in session.scalars(select(Grant))}
        bought = session.scalars(select(BoughtGrant)).all()
        unmatched = session.scalars(select(Unmatched)).all()
    confirmed, awaiting = defaultdict[str, int](int), defaultdict[str, int](int)
    for row in bought:
        grant = grants.pop(row.grant_id)
        left = grant.amount_micro - grant.revoked_micro
        (awaiting if grant.awaiting_payment else confirmed)[row.purchase_id] += left
    assert not grants, f"grants that nothing paid for: {sorted(grants)}"
    pools = defaultdict[tuple[str, str], int](int)
    with store.read() as session:
        for grant in session.scalars(select(Grant)):
            pools[grant.pool_kind, grant.pool_id] += grant.amount_micro - grant.revoked_micro
    return Books(
        {
            row.id: Written(
                row.state,
                row.session_id,
                confirmed[row.id],
                awaiting[row.id],
                frozenset(invoices[row.id]),
                (subscriptions[row.id].status, subscriptions[row.id].cancel_at_period_end)
                if row.id in subscriptions
                else None,
            )
            for row in purchases
        },
        frozenset((row.object_id, row.code, row.purchase_id) for row in unmatched),
        dict(pools),
    )


def differences(
    books: Books, objects: Objects, sales: dict[str, Sale], closed: set[tuple[str, str]], now_s: int
) -> list[str]:
    """Where the control plane is not as the oracle says, once everything has been looked at.

    A pool that was closed takes no new credits: what is then paid must be put aside instead.
    """
    found = []
    if books.purchases.keys() != sales.keys():
        found.append(f"purchases are {sorted(books.purchases)}, sold were {sorted(sales)}")
    excused = set()
    for sale in sales.values():
        written, right = books.purchases[sale.purchase_id], expected(objects, sale, now_s)
        session = session_of(objects, sale.purchase_id)
        aside = {each for each in books.unmatched if each[2] == sale.purchase_id}
        is_short = sale.pool in closed and written.confirmed_micro < right.confirmed_micro
        if is_short and aside:
            excused |= aside
        elif written.confirmed_micro != right.confirmed_micro:
            found.append(f"{sale}: granted {written.confirmed_micro}, paid {right.confirmed_micro}")
        if sale.pool not in closed and written.awaiting_micro not in right.awaiting_micro:
            found.append(
                f"{sale}: {written.awaiting_micro} awaits payment, not {right.awaiting_micro}"
            )
        if written.state not in right.states:
            found.append(f"{sale} is {written.state}, not {set(right.states)}")
        if written.session_id != (session["id"] if session else None):
            found.append(f"{sale} has session {written.session_id}")
        if written.paid_invoices != right.paid_invoices:
            found.append(f"{sale} shows {written.paid_invoices}, not {right.paid_invoices}")
        if right.subscription and written.subscription != right.subscription:
            found.append(f"{sale} is {written.subscription}, not {right.subscription}")
    found += [f"unmatched: {each}" for each in books.unmatched - excused]
    return found


def pool_differences(
    books: Books, worker: Worker, pools: set[tuple[str, str]], closed: set[tuple[str, str]]
) -> list[str]:
    """What is granted less revoked lies in the pool, was spent, or is owed; and nothing is owed
    that was not spent."""
    found = []
    for kind, pool_id in pools - closed:
        pool, spent = worker.pool(kind, pool_id), worker.spent_micro[kind, pool_id]
        left = sum(grant.remaining_micro for grant in pool.grants)
        granted = books.pools.get((kind, pool_id), 0)
        if granted != left + spent - pool.debt_micro:
            found.append(
                f"{pool_id}: granted {granted}, left {left}, spent {spent}, owed {pool.debt_micro}"
            )
        if pool.debt_micro > spent:
            found.append(f"{pool_id} owes {pool.debt_micro} of {spent} spent")
    return found
