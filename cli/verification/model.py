"""The model: what every fact and event should lead to, by the plainest means.

Feed it the records of a partition in the order in which they were decided, with their append
times and the `now` of each decision, and the clock's ticks; it answers what should come out. It
keeps every fact and every movement, looks things up by scanning what it kept, and can add the
balances up again from the first movement (`recomputed_balances`).
"""

from collections import defaultdict
from collections.abc import Callable, Container
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from cli.verification.books import Movement, Organization
from cli.verification.fact_reading import Fact, read_fact
from cli.verification.fact_rules import apply_fact, close_group, closing_entries
from cli.verification.parsing import Headers, Refused, Usage, read_usage, refuse_if
from schemas.reasons import Reason
from schemas.records import INT64_MAX, UNASSIGNED

Entry = tuple[str, str]
"""Organization and entry id."""


@dataclass(frozen=True)
class Rated:
    """The row that should be there; names and meanings as in `schemas.records.RatedEvent`."""

    row: dict[str, Any]


@dataclass(frozen=True)
class Duplicate:
    """Nothing should be there."""


@dataclass(frozen=True)
class DeadLetter:
    reason: Reason


@dataclass(frozen=True)
class Applied:
    """A fact that should have been applied, with its postings; `repeated` if it was before."""

    postings: tuple[Movement, ...] = ()
    repeated: bool = False


class Model:
    """One partition's worth of organizations (or any number of them: they are independent)."""

    def __init__(
        self,
        alias_hash: Callable[[str], str],
        max_event_age: timedelta = timedelta(days=35),
        late_grace: timedelta = timedelta(days=1),
    ) -> None:
        self.organizations: dict[str, Organization] = {}
        self._alias_hash = alias_hash
        self._max_event_age = max_event_age
        self.late_grace = late_grace
        self._seen: dict[tuple[str, str, str], tuple[Any, ...]] = {}

    def usage(
        self, value: bytes | None, key: bytes | None, headers: Headers, appended_at: datetime
    ) -> Rated | Duplicate | DeadLetter:
        """The next usage record."""
        try:
            usage = read_usage(value, key, headers, appended_at, self._max_event_age)
            if usage.identity in self._seen:
                refuse_if(self._seen[usage.identity] != usage.content, Reason.CONFLICT)
                return Duplicate()
            row = self._rate(usage, appended_at)
        except Refused as refused:
            return DeadLetter(refused.reason)
        self._seen[usage.identity] = usage.content
        return Rated(row)

    def fact(
        self, topic: str, value: bytes | None, key: bytes | None, now: datetime
    ) -> Applied | DeadLetter:
        """The next record of `memberships` or `credits`, decided at `now`."""
        try:
            return self._fact(read_fact(topic, value, key), now)
        except Refused as refused:
            return DeadLetter(refused.reason)

    def tick(self, now: datetime, posted: Container[Entry] | None = None) -> list[Movement]:
        """What the clock does: expired remainders go, announced deletions come into force.

        With `posted`, only entries among these: the clock strikes somewhat before its work is
        done, and what falls due in between waits for the next time.
        """
        movements: list[Movement] = []
        for name, organization in self.organizations.items():
            for (kind, group_id), facts in organization.facts_about.items():
                if kind == "deletion" and facts[0].effective_at <= now:
                    entries = closing_entries(organization, group_id)
                    if posted is None or any((name, entry) in posted for entry in entries):
                        movements += close_group(organization, group_id)
            for grant in organization.grants.values():
                entry_id = f"forfeit:{grant.grant_id}"
                expired = grant.expires_at and grant.expires_at + self.late_grace <= now
                is_meant = posted is None or (name, entry_id) in posted
                if expired and grant.left_micro and is_meant:
                    grant.lapsed_micro = left = grant.left_micro
                    legs = [
                        ("available", grant.grant_id, -left),
                        ("forfeited", grant.grant_id, left),
                    ]
                    movements += organization.move(entry_id, legs, grant.pool)
        return movements

    def balances(self) -> dict[tuple[str, str, str], int]:
        """Balance by organization, pool kind and pool id, of every pool that ever moved."""
        return {
            (name, *pool): organization.balance(pool)
            for name, organization in self.organizations.items()
            for pool in {movement.pool for movement in organization.movements}
        }

    def recomputed_balances(self) -> dict[tuple[str, str, str], int]:
        """The same from nothing but the movements, debits included."""
        sums: dict[tuple[str, str, str], int] = defaultdict(int)
        for name, organization in self.organizations.items():
            for movement in organization.movements:
                inside = movement.account in ("available", "debt")
                sums[(name, *movement.pool)] += movement.amount_micro if inside else 0
        return dict(sums)

    def _rate(self, usage: Usage, appended_at: datetime) -> dict[str, Any]:
        organization = self.organizations.get(usage.organization_id)
        if organization is None:
            raise Refused(Reason.UNKNOWN_ORGANIZATION)
        at = usage.event_time
        own = organization.as_of("price", usage.meter, at, book="organization")
        price = own or organization.as_of("price", usage.meter, at, book="default")
        if price is None:
            raise Refused(Reason.NO_PRICE)
        price_micro = price["micro_per_million_units"]
        twice = 2 * usage.quantity_micro * price_micro
        cost = (twice + 10**12) // (2 * 10**12)
        refuse_if(cost > INT64_MAX, Reason.COST_TOO_LARGE)
        settings = organization.settings(at)
        member_id, resolved_by = self._resolve(organization, usage.subject, at)
        group, version = organization.group("member", member_id, at)
        funding = group
        if settings["funding_group"] == "website" and usage.website_id:
            funding, _ = organization.group("website", usage.website_id, at)
        if funding == UNASSIGNED or funding in organization.closed:
            funding = ""
        paid = self._pay(organization, usage, funding, cost)
        return {
            "organization_id": usage.organization_id,
            "source": usage.source,
            "event_id": usage.event_id,
            "revision": 0,
            "event_time": at,
            "meter": usage.meter,
            "subject": usage.subject,
            "member_id": member_id,
            "resolved_by": resolved_by,
            "website_id": usage.website_id,
            "dimensions": usage.dimensions,
            "stamped_group_id": group,
            "funding_group_id": funding,
            "membership_version": version,
            "settings_version": settings.version,
            "price_version": price.version,
            "price_micro": price_micro,
            "quantity_micro": usage.quantity_micro,
            "cost_micro": cost,
            **paid,
            "credit_price_micro": settings["credit_price_micro"],
            "currency": settings["currency"],
            "appended_at": appended_at,
        }

    def _resolve(self, organization: Organization, subject: str, at: datetime) -> tuple[str, str]:
        if organization.facts_about.get(("member", subject)):
            return subject, "member"
        alias = organization.as_of("alias", self._alias_hash(subject), at)
        if alias is not None and not alias["removed"]:
            return alias["member_id"], "alias"
        return subject, "unknown"

    def _pay(
        self, organization: Organization, usage: Usage, funding: str, cost: int
    ) -> dict[str, Any]:
        """Website pool, then group pool; what they pay is moved at once."""
        paid: dict[str, Any] = {"allocations": []}
        left = cost
        for kind, pool_id in (("website", usage.website_id), ("group", funding)):
            parts = organization.spend((kind, pool_id), left, usage.event_time) if pool_id else []
            for grant_id, part in parts:
                organization.move("usage", [("available", grant_id, -part)], (kind, pool_id))
                paid["allocations"].append((kind, grant_id, part))
            paid[f"{kind}_debit_micro"] = debit = sum(part for _, part in parts)
            paid[f"{kind}_balance_micro"] = organization.balance((kind, pool_id)) if pool_id else 0
            left -= debit
        return {**paid, "overage_micro": left}

    def _fact(self, fact: Fact, now: datetime) -> Applied:
        """Numbering; what the fact means is in `fact_rules`."""
        name, topic = fact.organization_id, fact.topic
        organization = self.organizations.get(name)
        if organization is None:
            first = fact.version == 1 and fact.type == "organization_created"
            refuse_if(not first, Reason.UNKNOWN_ORGANIZATION)
            created = Organization()
            postings = apply_fact(created, fact, now)
            organization = self.organizations[name] = created
            organization.consumed[topic, 1] = fact.content
            organization.version[topic] = 1
            return Applied(tuple(postings))
        if fact.version <= organization.version[topic]:
            if organization.consumed[topic, fact.version] != fact.content:
                organization.stopped[topic] = organization.stopped[topic] or fact.version
                raise Refused(Reason.VERSION_CONFLICT)
            if organization.stopped[topic] == fact.version:
                organization.stopped[topic] = 0
            return Applied(repeated=True)
        refuse_if(fact.version > organization.version[topic] + 1, Reason.VERSION_GAP)
        refuse_if(organization.stopped[topic] > 0, Reason.FACTS_STOPPED)
        organization.consumed[topic, fact.version] = fact.content
        organization.version[topic] = fact.version
        return Applied(tuple(apply_fact(organization, fact, now)))
