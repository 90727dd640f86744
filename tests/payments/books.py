"""A purchase's grants in memory, as the database would hold them; it refuses what that refuses."""

import re
from dataclasses import dataclass, field, replace
from datetime import datetime

from api.payments.seen import Seen
from api.payments.settlement import wanted
from api.payments.terms import Held, HeldGrant, Identity, Options, Sold, Wanted, WantedGrant
from tests.payments.purchases import PACKAGE_CREDITS, PRICE

ONE_TIME = Sold(
    "org_a",
    "pur_1",
    "stripe",
    "group",
    "group_a",
    "one_time",
    3,
    PACKAGE_CREDITS,
    PRICE,
    "USD",
    "cs_1",
)
MONTHLY = replace(ONE_TIME, kind="monthly")


def problems_of(want: Wanted) -> str:
    return " ".join(each.code for each in want.problems)


@dataclass
class Books:
    """What is held, and what was ever granted."""

    sold: Sold
    options: Options = field(default_factory=Options)
    held: Held = field(default_factory=Held)

    def look(self, seen: Seen, now: datetime) -> Wanted:
        """Writes down what ought to be; asking again at once must find nothing to do."""
        want = wanted(self.sold, self.held, seen, now, self.options)
        self._write(want, now)
        again = wanted(self.sold, self.held, seen, now, self.options)
        before = self.held
        self._write(again, now)
        assert self.held == before
        assert again.problems == want.problems
        return want

    def _write(self, want: Wanted, now: datetime) -> None:
        by_id = {grant.id: grant for grant in self.held.grants}
        assert len({grant.id for grant in want.grants}) == len(want.grants)
        for grant in want.grants:
            by_id[grant.id] = self._mended(by_id.get(grant.id), grant, now)
        grants = tuple(by_id[each] for each in sorted(by_id))
        refuse_twice([grant.identity for grant in grants])
        subscription = want.subscription or self.held.subscription
        self.held = Held(want.state, want.message, grants, subscription)

    def _mended(self, held: HeldGrant | None, want: WantedGrant, now: datetime) -> HeldGrant:
        assert 0 <= want.revoked_micro <= want.amount_micro
        assert want.amount_micro > 0
        if held is None:
            return HeldGrant(
                want.id,
                want.kind,
                want.amount_micro,
                want.revoked_micro,
                want.awaiting_payment,
                want.effective_at or now,
                want.expires_at,
                want.identity,
            )
        assert want.revoked_micro >= held.revoked_micro
        assert held.awaiting_payment or not want.awaiting_payment
        assert want.why or want.revoked_micro == held.revoked_micro
        assert (want.kind, want.amount_micro, want.expires_at) == (
            held.kind,
            held.amount_micro,
            held.expires_at,
        )
        return replace(
            held,
            revoked_micro=want.revoked_micro,
            awaiting_payment=want.awaiting_payment,
            identity=want.identity,
        )

    def place(self, subscription_id: str, start: datetime, end: datetime) -> str:
        """What a renewals' loop places ahead."""
        grant = HeldGrant(
            f"stripe:{subscription_id}:{int(start.timestamp())}",
            "monthly",
            self.sold.credits_micro,
            0,
            True,
            start,
            end,
            Identity(subscription_id=subscription_id, period_start=start),
        )
        grants = (*self.held.grants, grant)
        refuse_twice([each.identity for each in grants])
        self.held = replace(self.held, grants=grants)
        return grant.id

    @property
    def state(self) -> str:
        return "awaiting" if self.held.state == "awaiting_payment" else self.held.state

    @property
    def left_micro(self) -> int:
        return sum(grant.left_micro for grant in self.held.grants)

    def of_period(self, start: datetime) -> int:
        """What is left of all grants that begin then."""
        return sum(each.left_micro for each in self.held.grants if each.effective_at == start)

    def shown(self) -> str:
        """`s 3/2 d1:won 1/1?`: packages granted and left, `?` where payment is awaited."""
        million = 1_000_000

        def packages(micro: int) -> str:
            return f"{micro / million:g}"

        return " ".join(
            f"{_short(grant.id)} {packages(grant.amount_micro)}"
            f"/{packages(grant.left_micro)}{'?' * grant.awaiting_payment}"
            for grant in self.held.grants
        )


def _short(grant_id: str) -> str:
    name = re.sub(r"in_(\d):il_(?:\1)?", r"\1", grant_id.removeprefix("stripe:"))
    return name.replace("cs_1", "s").replace(":again:", ":a").replace("dp_", "d")


def refuse_twice(identities: list[Identity]) -> None:
    """The unique columns of `bought_grants`."""
    for columns in (
        ("session_id",),
        ("invoice_id", "line_id"),
        ("subscription_id", "period_start"),
        ("dispute_id", "of_grant_id"),
    ):
        keys = [tuple(getattr(each, name) for name in columns) for each in identities]
        whole = [key for key in keys if None not in key]
        assert len(set(whole)) == len(whole), columns
