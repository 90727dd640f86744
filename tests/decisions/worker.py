"""The decisions put together in memory, as the worker does it: what the tests drive."""

from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any

from schemas import codec, records
from schemas.reasons import Reason
from schemas.topics import CREDITS, MEMBERSHIPS, USAGE
from streams.decisions.dedupe import Verdict, judge
from streams.decisions.events import Headers, Limits, UsageEvent
from streams.decisions.facts import FactInput, FactOutcome, decide_fact
from streams.decisions.forfeits import decide_forfeit
from streams.decisions.intake import Intake
from streams.decisions.outcomes import Rejected
from streams.decisions.state import MemoryState, apply_changes
from streams.decisions.usage import UsageContext, apply_rated, decide_usage

T0 = datetime(2026, 11, 1, 12, tzinfo=UTC)
HOUR = timedelta(hours=1)
ORG = "org_7"
alias_hash = partial(codec.alias_hash, b"a secret of tests")


def instant(text: str) -> datetime:
    """`+90m`, `-2h`, `+3d`, `0` from T0."""
    if text == "0":
        return T0
    unit = {"s": 1, "m": 60, "h": 3600, "d": 86_400}[text[-1]]
    return T0 + timedelta(seconds=int(text[:-1]) * unit)


def cloud_event(event_id: str = "evt_1", **changes: Any) -> dict[str, Any]:
    """A good structured event; `changes` replace attributes, `None` removes one."""
    event: dict[str, Any] = {
        "specversion": "1.0",
        "id": event_id,
        "source": "editor/eu-1",
        "type": "ai.tokens",
        "time": T0,
        "subject": "user_42",
        "organizationid": ORG,
        "data": {"quantity": 1830},
    }
    event |= changes
    return {name: value for name, value in event.items() if value is not None}


def frozen(state: MemoryState) -> dict[Any, bytes]:
    """What a state holds, as bytes: to see that nothing was touched."""
    return {key: codec.encode(value) for key, value in state.values.items()}


@dataclass
class Worker:
    """One partition: state, seen ids and everything that was written."""

    state: MemoryState = field(default_factory=MemoryState)
    seen: dict[bytes, int] = field(default_factory=dict)
    rated: list[records.RatedEvent] = field(default_factory=list)
    postings: list[records.Posting] = field(default_factory=list)
    versions: dict[tuple[str, str], int] = field(default_factory=dict)
    late_grace: timedelta = timedelta(days=1)
    now: datetime = T0

    def __post_init__(self) -> None:
        self.intake = Intake(Limits())
        self.context = UsageContext(USAGE, 3, alias_hash, self.now)

    def publish(
        self, fact: Any, effective_at: datetime | None = None, *, version: int = 0, org: str = ORG
    ) -> FactOutcome:
        """Publishes a fact under the next version, or the given one."""
        credit = isinstance(fact, records.Granted | records.Revoked | records.Adjusted)
        topic = CREDITS if credit else MEMBERSHIPS
        record_type = records.CreditRecord if credit else records.MembershipRecord
        if not version:
            version = self.versions[org, topic] = self.versions.get((org, topic), 0) + 1
        at = effective_at or self.now
        record = record_type(org, version, self.now, at, fact)
        return self.receive_fact(topic, codec.encode(record), org.encode())

    def receive_fact(self, topic: str, value: bytes | None, key: bytes | None) -> FactOutcome:
        before = frozen(self.state)
        outcome = decide_fact(FactInput(topic, 3, 17, key, value, self.now, 3), self.state)
        assert frozen(self.state) == before, "deciding touches nothing"
        apply_changes(self.state, outcome.changes)
        self.postings += outcome.postings
        return outcome

    def send(self, event_id: str = "evt_1", **changes: Any) -> records.RatedEvent | Rejected | None:
        """Sends a CloudEvent built from `cloud_event`."""
        return self.receive(codec.encode(cloud_event(event_id, **changes)), ORG.encode())

    def receive(
        self,
        value: bytes | None,
        key: bytes | None,
        headers: Headers = (),
        appended_at: datetime | None = None,
    ) -> records.RatedEvent | Rejected | None:
        """The row, the refusal, or None for a duplicate."""
        event = self.intake.parse(value, key, headers, appended_at or self.now)
        if isinstance(event, Rejected):
            return event
        return self.charge(event)

    def charge(self, event: UsageEvent) -> records.RatedEvent | Rejected | None:
        verdict = judge(self.seen.get(event.identity, 0), event.content)
        if verdict is Verdict.DUPLICATE:
            return None
        if verdict is Verdict.CONFLICT:
            return Rejected(Reason.CONFLICT, "")
        self.context.now = self.now
        before = frozen(self.state)
        row = decide_usage(event, len(self.rated), self.state, self.context)
        assert frozen(self.state) == before, "deciding touches nothing"
        if isinstance(row, records.RatedEvent):
            apply_rated(row, self.state)
            self.seen[event.identity] = event.content
            self.rated.append(row)
        return row

    def tick(self, struck_at: datetime | None = None) -> list[records.Posting]:
        """The clock, as the runtime walks the index: in key order, up to the strike (now)."""
        moved: list[records.Posting] = []
        index = sorted(key for key in self.state.values if key[0] == "expiry")
        for key in index:
            due = decide_forfeit(
                key,
                self.state.values[key],
                self.state,
                struck_at or self.now,
                self.now,
                self.late_grace,
            )
            if due is not None:
                apply_changes(self.state, due.changes)
                moved += due.postings
        self.postings += moved
        return moved

    def pool(self, kind: str, pool_id: str, org: str = ORG) -> records.Pool:
        return self.state.get(("pool", org, kind, pool_id)) or records.Pool()


def worker_with_credits() -> Worker:
    """An organization with groups a and b, a member, a website, a price of 1 micro-credit."""
    worker = Worker(now=T0 - 24 * HOUR)
    for fact in (
        records.OrganizationCreated(),
        records.GroupCreated("a"),
        records.GroupCreated("b"),
        records.MemberAssigned("user_42", "a", "api"),
        records.WebsiteAssigned("web_3", "b"),
        records.PriceSet("ai.tokens", records.MICRO),
    ):
        assert worker.publish(fact).applied is not None
    worker.now = T0
    return worker
