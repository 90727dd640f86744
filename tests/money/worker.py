"""The pipeline's decisions over the facts that the control plane has written: pools and usage.

What the stream worker does with the same facts, without Kafka: the outbox is its topic.
"""

import json
from collections import Counter
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from sqlalchemy import select

from api.storage.ledgers import OutboxFact
from api.storage.store import Store
from schemas.records import Pool, RatedEvent
from streams.decisions.events import Limits, UsageEvent
from streams.decisions.facts import FactInput, decide_fact
from streams.decisions.intake import Intake
from streams.decisions.state import MemoryState, apply_changes, pool_key
from streams.decisions.usage import UsageContext, apply_rated, decide_usage

METER = "ai.tokens"
MEMBERS = {"group_one": "user_one", "group_two": "user_two"}
CREDIT_MICRO = 1_000_000


@dataclass
class Worker:
    """One partition. `spent_micro` is what events took from each pool, by kind and id."""

    organization_id: str
    state: MemoryState = field(default_factory=MemoryState)
    spent_micro: Counter[tuple[str, str]] = field(default_factory=Counter)
    events: int = 0
    _facts_read: int = 0

    def catch_up(self, store: Store, now: datetime) -> None:
        """Every fact there is. None may be refused: what the control plane says is right."""
        with store.read() as session:
            rows = session.execute(
                select(OutboxFact.id, OutboxFact.topic, OutboxFact.payload)
                .where(OutboxFact.id > self._facts_read)
                .order_by(OutboxFact.id)
            ).all()
        for number, topic, payload in rows:
            key = self.organization_id.encode()
            outcome = decide_fact(FactInput(topic, 0, number, key, payload, now, 0), self.state)
            assert outcome.applied is not None, outcome
            apply_changes(self.state, outcome.changes)
            self._facts_read = number

    def spend(self, group_id: str, website_id: str | None, credits: int, now: datetime) -> None:
        """A usage event of a member of the group that costs so many credits."""
        self.events += 1
        data: dict[str, object] = {"quantity": credits}
        if website_id:
            data["website_id"] = website_id
        value = {
            "specversion": "1.0",
            "id": f"evt_{self.events}",
            "source": "test",
            "type": METER,
            "time": now.isoformat(),
            "subject": MEMBERS[group_id],
            "organizationid": self.organization_id,
            "data": data,
        }
        key = self.organization_id.encode()
        event = Intake(Limits()).parse(json.dumps(value).encode(), key, (), now)
        assert isinstance(event, UsageEvent), event
        context = UsageContext("usage", 0, str, now + timedelta(seconds=1))
        rated = decide_usage(event, self.events, self.state, context)
        assert isinstance(rated, RatedEvent), rated
        apply_rated(rated, self.state)
        self.spent_micro["website", str(website_id)] += rated.website_debit_micro
        self.spent_micro["group", rated.funding_group_id] += rated.group_debit_micro

    def pool(self, kind: str, pool_id: str) -> Pool:
        found: Pool | None = self.state.get(pool_key(self.organization_id, kind, pool_id))
        return found or Pool()
