"""Writes what ought to be true of a purchase, in one transaction, or nothing at all.

`settlement` says what ought to be; the grants and facts are made by `api.rules.credits`. A look at
the provider takes time, so whoever looks reads `revision_of` first and passes it on: each settling
counts it up, also one that changes nothing, and an older look is `Stale`.
"""

from dataclasses import dataclass, field
from datetime import datetime
from typing import Final, cast

from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from api.errors import Refused, not_found
from api.payments import adoption, bookkeeping
from api.payments.monthly import may_place_ahead
from api.payments.seen import Seen
from api.payments.settlement import wanted
from api.payments.terms import (
    HeldGrant,
    Identity,
    Options,
    Problem,
    Sold,
    Wanted,
    WantedGrant,
)
from api.rules.change import Actor, Change, Control
from api.rules.credits import NewGrant, grant, revoke
from api.storage.ledgers import Grant
from api.storage.purchases import BillingProfile, BoughtGrant, Purchase
from schemas.records import MICRO, GrantKind, PoolKind

SOURCE_LIMIT_CHARACTERS: Final = 255
TRY_LATER: Final = 503
TAKEN: Final = "grant_exists"
DEFAULTS: Final = Options()


class Stale(Exception):
    """Somebody wrote down a look at this purchase meanwhile: look again."""


@dataclass(frozen=True, slots=True)
class PurchaseKey:
    """Names a purchase."""

    organization_id: str
    purchase_id: str


@dataclass(frozen=True, slots=True)
class Settled:
    """What was written. `differences` has a sentence for each thing that was not as it ought."""

    revision: int
    differences: tuple[str, ...]
    problems: tuple[Problem, ...]


def revision_of(control: Control, key: PurchaseKey) -> int:
    """How many looks were written down; to be read before one looks. Raises Refused (404)."""
    with control.store.read() as session:
        return _find(session, key).revision


def settle(
    control: Control,
    key: PurchaseKey,
    expected_revision: int,
    seen: Seen,
    options: Options = DEFAULTS,
) -> Settled:
    """Makes true what the provider says.

    Where no pool can take the credits (its group was deleted, or it is full), what was paid is put
    down as unmatched, and all else is done. Raises Stale where the look is too old, Refused (503)
    where nothing can be written now.
    """
    work = _Work(control, key, expected_revision, seen, options)
    try:
        return work.write(None)
    except Refused as refusal:
        if refusal.status == TRY_LATER or not work.has_granted:
            raise
        return work.again(refusal)


@dataclass
class _Work:
    control: Control
    key: PurchaseKey
    expected_revision: int
    seen: Seen
    options: Options
    has_granted: bool = False
    is_taken: bool = False
    """A grant's id is: perhaps it is the purchase's own, and nobody knows that any more."""

    def again(self, refusal: Refused) -> Settled:
        """After a refusal: without grants, unless they may be the purchase's own."""
        if refusal.code == TAKEN and not self.is_taken:
            self.is_taken = True
            try:
                return self.write(None)
            except Refused as still:
                if still.status == TRY_LATER or not self.has_granted:
                    raise
                refusal = still
        return self.write(refusal)

    def write(self, refusal: Refused | None) -> Settled:
        """One transaction. With a refusal it grants nothing: that was tried."""
        actor = Actor(self.seen.provider, "api")
        self.has_granted = False
        try:
            with self.control.change(self.key.organization_id, actor) as change:
                return self._write(change, refusal)
        except IntegrityError as error:
            raise Stale("somebody settled the same at the same time") from error

    def _write(self, change: Change, refusal: Refused | None) -> Settled:
        purchase = _find(change.session, self.key)
        if purchase.provider != self.seen.provider:
            raise ValueError(f"a purchase by {purchase.provider} seen at {self.seen.provider}")
        if purchase.revision != self.expected_revision:
            raise Stale(f"revision {purchase.revision}, looked at {self.expected_revision}")
        seen, problems = bookkeeping.without_others(change.session, purchase, self.seen)
        sold = _sold(change, purchase)
        differences = self._adopt(change.session, sold, seen)
        held = bookkeeping.held(change.session, purchase)
        want = wanted(sold, held, seen, change.now, self.options)
        problems += want.problems
        differences += bookkeeping.follow(change, purchase, seen, want)
        write = _Grants(change, purchase, sold)
        by_id = {each.id: each for each in held.grants}
        self.has_granted = refusal is None and any(each.id not in by_id for each in want.grants)
        write.write(by_id, want, refusal)
        problems += tuple(write.problems)
        differences += write.differences
        differences += bookkeeping.put_aside(change, purchase, seen, problems)
        purchase.revision += 1
        change.session.flush()
        return Settled(purchase.revision, tuple(differences), problems)

    def _adopt(self, session: Session, sold: Sold, seen: Seen) -> list[str]:
        """Takes back what the purchase lost when the database was restored from a backup."""
        if not self.is_taken and not adoption.has_lost(session, sold):
            return []
        rows = adoption.lost(session, sold, seen)
        session.add_all(rows)
        session.flush()
        return [f"{row.grant_id} is of purchase {sold.purchase_id}" for row in rows]


@dataclass
class _Grants:
    """What is revoked first becomes the pool's debt, as far as it was spent, and what is granted
    then repays it; so it is done in this order."""

    change: Change
    purchase: Purchase
    sold: Sold
    differences: list[str] = field(default_factory=list)
    problems: list[Problem] = field(default_factory=list)

    def write(self, held: dict[str, HeldGrant], want: Wanted, refusal: Refused | None) -> None:
        """With a refusal nothing is granted, and what was paid for is a problem."""
        new = [each for each in want.grants if each.id not in held]
        for each in want.grants:
            if each.id in held:
                self._mend(held[each.id], each)
        for each in new:
            if refusal is None:
                self._grant(each)
            elif not each.awaiting_payment:
                self._cannot(each, refusal)

    def _mend(self, held: HeldGrant, want: WantedGrant) -> None:
        more = want.revoked_micro - held.revoked_micro
        if more > 0:
            self._revoke(want, more)
        if held.awaiting_payment and not want.awaiting_payment:
            row = self.change.session.get_one(Grant, (self.sold.organization_id, want.id))
            row.awaiting_payment = False
            before, after = {"awaiting_payment": True}, {"awaiting_payment": False}
            self.change.audit("grant.confirm", ("grant", want.id), before, after)
            self.differences.append(f"confirmed {want.id}: its invoice is paid")
        if held.identity != want.identity:
            key = (self.sold.organization_id, want.id)
            bought = self.change.session.get_one(BoughtGrant, key)
            _identify(bought, want.identity)
            self.differences.append(f"{want.id} is of invoice {want.identity.invoice_id}")

    def _grant(self, want: WantedGrant) -> None:
        grant(
            self.change,
            NewGrant(
                self.sold.pool_kind,
                self.sold.pool_id,
                want.kind,
                want.amount_micro,
                want.source[:SOURCE_LIMIT_CHARACTERS],
                want.effective_at,
                want.expires_at,
                want.awaiting_payment,
                want.id,
            ),
        )
        bought = BoughtGrant(
            organization_id=self.sold.organization_id,
            grant_id=want.id,
            purchase_id=self.sold.purchase_id,
            provider=self.sold.provider,
        )
        _identify(bought, want.identity)
        self.change.session.add(bought)
        waiting = ", awaiting payment" if want.awaiting_payment else ""
        self.differences.append(f"granted {want.id}: {credits(want.amount_micro)}{waiting}")
        if want.revoked_micro:
            self._revoke(want, want.revoked_micro)

    def _revoke(self, want: WantedGrant, amount_micro: int) -> None:
        why = (want.why or "not paid")[:SOURCE_LIMIT_CHARACTERS]
        revoke(self.change, want.id, amount_micro, why)
        self.differences.append(f"revoked {credits(amount_micro)} of {want.id}: {why}")

    def _cannot(self, want: WantedGrant, refusal: Refused) -> None:
        message = (
            f"{credits(want.amount_micro - want.revoked_micro)} were paid for and cannot be "
            f"granted to {self.sold.pool_kind} {self.sold.pool_id!r}: {refusal.message}"
        )
        self.problems.append(Problem(*want.paid_by, "cannot_grant", message))


def place_renewal(
    control: Control,
    key: PurchaseKey,
    subscription_id: str,
    period_start: datetime,
    period_end: datetime,
) -> str | None:
    """Grants the next period's credits before there is an invoice, awaiting payment; their id.

    None where there is nothing to place: the subscription is not live or not to be renewed, it is
    not the period that comes next, it has a grant already, or an earlier one is not paid, or the
    pool takes none. Raises Refused: 404 for no such purchase, 503 where nothing can be written now.
    """
    with control.store.read() as session:
        provider = _find(session, key).provider
    try:
        return _place_renewal(control, key, provider, subscription_id, period_start, period_end)
    except IntegrityError:
        return None
    except Refused as refusal:
        if refusal.status == TRY_LATER:
            raise
        return None


def _place_renewal(
    control: Control,
    key: PurchaseKey,
    provider: str,
    subscription_id: str,
    start: datetime,
    end: datetime,
) -> str | None:
    with control.change(key.organization_id, Actor(provider, "api")) as change:
        purchase = _find(change.session, key)
        held = bookkeeping.held(change.session, purchase)
        if not may_place_ahead(held, subscription_id, start):
            return None
        sold = _sold(change, purchase)
        grant_id = f"{sold.provider}:{subscription_id}:{int(start.timestamp())}"
        identity = Identity(subscription_id=subscription_id, period_start=start)
        want = WantedGrant(
            grant_id,
            "monthly",
            sold.credits_micro,
            0,
            True,
            start,
            end,
            identity,
            "",
            f"{sold.provider}:{subscription_id}",
            ("subscription", subscription_id),
        )
        _Grants(change, purchase, sold)._grant(want)
        return grant_id


def credits(amount_micro: int) -> str:
    """`12.5 credits`: for people."""
    whole, rest = divmod(amount_micro, MICRO)
    decimals = f".{rest:06}".rstrip("0") if rest else ""
    return f"{whole}{decimals} credits"


def _identify(bought: BoughtGrant, identity: Identity) -> None:
    bought.session_id = identity.session_id
    bought.invoice_id, bought.line_id = identity.invoice_id, identity.line_id
    bought.subscription_id = identity.subscription_id
    bought.period_start = identity.period_start
    bought.dispute_id, bought.of_grant_id = identity.dispute_id, identity.of_grant_id


def _find(session: Session, key: PurchaseKey) -> Purchase:
    purchase = session.get(Purchase, (key.organization_id, key.purchase_id))
    if purchase is None:
        raise not_found("purchase", key.purchase_id, "purchase_id")
    return purchase


def _sold(change: Change, purchase: Purchase) -> Sold:
    at = (purchase.organization_id, purchase.profile_id)
    profile = change.session.get_one(BillingProfile, at)
    return Sold(
        purchase.organization_id,
        purchase.id,
        purchase.provider,
        cast(PoolKind, profile.pool_kind),
        profile.pool_id,
        cast(GrantKind, purchase.kind),
        purchase.quantity,
        purchase.package_credits_micro,
        purchase.package_price_minor,
        purchase.currency,
        purchase.session_id,
    )
