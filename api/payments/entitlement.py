"""What one payment entitles to, and how the grants that are held for it come to that. Pure.

Every payment (a session, or a line of an invoice) has a family of grants: its own, and those that
gave credits back after a revocation turned out wrong. A revocation is never undone (`revoked_micro`
only grows), so the rule is about the family's sum alone, and in it the order in which things were
seen cannot matter: what is left of all of its grants is `net_micro`. More is revoked, first of the
grant itself, then of what was given back; less is given back by a further grant.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime

from api.payments.seen import Payment
from api.payments.terms import HeldGrant, Identity, Problem, Sold, WantedGrant
from schemas.records import INT64_MAX, GrantKind


@dataclass(frozen=True, slots=True)
class Money:
    """What was paid, and what of it was taken back: refunded, or held back by a bank."""

    paid_minor: int
    taken_minor: int
    refunded_minor: int

    @property
    def is_all_taken(self) -> bool:
        return 0 < self.paid_minor <= self.taken_minor

    def left_of(self, credits_micro: int) -> int:
        """Of what was bought: all but `floor(credits * taken / paid)`."""
        if self.paid_minor == 0:
            return credits_micro
        return credits_micro - credits_micro * self.taken_minor // self.paid_minor


def money(payments: Iterable[Payment], stated_minor: int = 0) -> Money:
    """Over all payments together; of each no more can be taken than was paid with it.

    `stated_minor` is what the invoice says was paid, which may be more than its charges (paid in
    part outside of the provider).
    """
    paid = taken = refunded = 0
    for payment in payments:
        disputed = sum(each.amount_minor for each in payment.disputes if each.state != "won")
        paid += payment.paid_minor
        taken += min(payment.paid_minor, payment.refunded_minor + disputed)
        refunded += payment.refunded_minor
    return Money(max(paid, stated_minor), taken, refunded)


def why_taken(payments: Iterable[Payment]) -> str:
    """In words, for the ledger: by a refund, a dispute or both."""
    listed = list(payments)
    disputes = sorted(
        each.id for payment in listed for each in payment.disputes if each.state != "won"
    )
    words = [f"dispute {disputes[0]}"] if disputes else []
    if any(payment.refunded_minor for payment in listed):
        words.insert(0, "refund")
    return " and ".join(words)


def misfit(sold: Sold, quantity: int, amount_minor: int, currency: str) -> str:
    """What of an amount does not fit what was sold, in words; empty where all does. The amount is
    before discounts and taxes, so that a coupon fits."""
    if currency.casefold() != sold.currency.casefold():
        return f"the currency is {currency.upper()}, sold in {sold.currency.upper()}"
    if quantity != sold.quantity:
        return f"the quantity is {quantity}, sold were {sold.quantity}"
    if amount_minor != sold.price_minor:
        return f"the amount is {amount_minor}, sold for {sold.price_minor} (in minor units)"
    if sold.credits_micro > INT64_MAX:
        return "the credits are more than Int64 can say"
    return ""


@dataclass(frozen=True, slots=True)
class Verdict:
    """What the rule for one kind of purchase says, before it is compared with what is held."""

    state: str
    message: str
    entitlements: tuple["Entitlement", ...]
    problems: tuple[Problem, ...]


@dataclass(frozen=True, slots=True)
class Entitlement:
    """What a payment entitles to.

    `net_micro` None: it is not known what is right, so what is held stays as it is. With
    `awaiting_payment` no grant is confirmed. `may_begin`: a grant is made where there is none yet.
    """

    grant_id: str
    kind: GrantKind
    credits_micro: int
    net_micro: int | None
    awaiting_payment: bool
    begins_at: datetime | None
    expires_at: datetime | None
    identity: Identity
    why: str
    source: str
    paid_by: tuple[str, str]
    payments: tuple[Payment, ...] = ()
    stated_minor: int = 0
    may_begin: bool = True
    is_first_line: bool = True


def family(entitlement: Entitlement, held: Iterable[HeldGrant], provider: str) -> list[WantedGrant]:
    """The grants that ought to be for it, those that are held and those to be made."""
    listed = list(held)
    base = next((grant for grant in listed if grant.id == entitlement.grant_id), None)
    if base is None:
        return _first(entitlement)
    given_back = sorted(
        (grant for grant in listed if grant.identity.of_grant_id == base.id),
        key=lambda grant: grant.id,
    )
    grants = [base, *given_back]
    left = sum(grant.left_micro for grant in grants)
    net = left if entitlement.net_micro is None else entitlement.net_micro
    stays_awaiting = entitlement.awaiting_payment or entitlement.net_micro is None
    surplus = max(0, left - net)
    wanted = []
    for grant in grants:
        more = min(surplus, grant.left_micro)
        surplus -= more
        identity = entitlement.identity if grant is base else grant.identity
        wanted.append(_kept(grant, entitlement, more, identity, stays_awaiting))
    if net > left:
        wanted += _given_back(entitlement, grants, net - left, provider)
    return wanted


def _first(entitlement: Entitlement) -> list[WantedGrant]:
    """The whole amount is granted and what was taken revoked, so that both can be read later; but
    where nothing would be left there is nothing to grant."""
    if not entitlement.net_micro or not entitlement.may_begin:
        return []
    revoked = entitlement.credits_micro - entitlement.net_micro
    grant_id, amount = entitlement.grant_id, entitlement.credits_micro
    return [_new(entitlement, grant_id, amount, revoked, entitlement.identity)]


def _kept(
    grant: HeldGrant, entitlement: Entitlement, more: int, identity: Identity, stays_awaiting: bool
) -> WantedGrant:
    return WantedGrant(
        grant.id,
        grant.kind,
        grant.amount_micro,
        grant.revoked_micro + more,
        grant.awaiting_payment and stays_awaiting,
        grant.effective_at,
        grant.expires_at,
        identity,
        entitlement.why,
        entitlement.source,
        entitlement.paid_by,
    )


def _given_back(
    entitlement: Entitlement, grants: list[HeldGrant], missing: int, provider: str
) -> list[WantedGrant]:
    """Under the disputes that were won, each at most what it can have taken; what else came back
    (a refund that failed, an invoice paid after it was given up) under the grant's own id."""
    base_id = grants[0].id
    used = {grant.identity.dispute_id for grant in grants}
    paid = money(entitlement.payments, entitlement.stated_minor).paid_minor
    wanted = []
    for dispute_id, amount_minor in _won(entitlement.payments):
        share = min(missing, -(-entitlement.credits_micro * amount_minor // paid)) if paid else 0
        if dispute_id in used or share == 0:
            continue
        missing -= share
        line = "" if entitlement.is_first_line else f":{entitlement.identity.line_id}"
        identity = Identity(dispute_id=dispute_id, of_grant_id=base_id)
        grant_id = f"{provider}:{dispute_id}:won{line}"
        wanted.append(_new(entitlement, grant_id, share, 0, identity))
    if missing:
        number = 1 + sum((each or "").startswith("again:") for each in used)
        identity = Identity(dispute_id=f"again:{number}", of_grant_id=base_id)
        wanted.append(_new(entitlement, f"{base_id}:again:{number}", missing, 0, identity))
    return wanted


def _won(payments: Iterable[Payment]) -> list[tuple[str, int]]:
    return sorted(
        (dispute.id, dispute.amount_minor)
        for payment in payments
        for dispute in payment.disputes
        if dispute.state == "won"
    )


def _new(
    entitlement: Entitlement, grant_id: str, amount: int, revoked: int, identity: Identity
) -> WantedGrant:
    return WantedGrant(
        grant_id,
        entitlement.kind,
        amount,
        revoked,
        entitlement.awaiting_payment,
        entitlement.begins_at,
        entitlement.expires_at,
        identity,
        entitlement.why,
        entitlement.source,
        entitlement.paid_by,
    )
