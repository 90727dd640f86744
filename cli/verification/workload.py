"""The seeded workload: usage good, odd and bad, with facts in its midst, in bursts.

All randomness comes from the seed, the times from the clock given: what must come out is decided
by the model from what the topics hold in the end.
"""

from collections import deque
from collections.abc import Iterator
from datetime import datetime, timedelta
from random import Random
from typing import Any, Final

import msgspec

from cli.verification.bad_input import BadInput
from cli.verification.cast import METERS, Tenant, make_cast
from cli.verification.messages import Expected, Message
from schemas.topics import USAGE

RECENT: Final = 2_000
"""Events of which one may be sent again."""
USAGE_A_CHANGE: Final = 60
"""Usage events to one change of facts, on average, in a small round."""
CHANGES_LIMIT: Final = 4_000
"""Of a round: the model looks facts up by scanning all that it knows of an organization."""

_encode = msgspec.json.encode


class Workload:
    """`opening` first, to be acknowledged; then bursts until the events are used up."""

    def __init__(self, events: int, organizations: int, partitions: int, seed: int) -> None:
        self.expected: Expected = {}
        self.remaining = events
        self._usage_a_change = max(USAGE_A_CHANGE, events // CHANGES_LIMIT)
        self._partitions = partitions
        self._random = Random(f"{seed}:usage")  # noqa: S311 - a workload, no secrets
        self._bad = BadInput(self._random, self.expected)
        self._cast = make_cast(organizations, seed)
        self._newcomer = Tenant(f"org_new_{seed}", Random(f"{seed}:new"))  # noqa: S311
        self._recent: deque[Message] = deque(maxlen=RECENT)
        self._serial = 0

    @property
    def last_expiry(self) -> datetime | None:
        """When the last thing falls due that the worker's clock has to see to."""
        known = [tenant.last_expiry for tenant in self._cast if tenant.last_expiry]
        return max(known, default=None)

    def opening(self, now: datetime) -> Iterator[Message]:
        for tenant in self._cast:
            yield from tenant.opening(now)

    def burst(self, size: int, now: datetime) -> Iterator[Message]:
        """About `size` events, with what else happens meanwhile."""
        size = min(size, self.remaining)
        self.remaining -= size
        for _ in range(size):
            if self._random.randrange(self._usage_a_change) == 0:
                tenant = self._random.choice(self._cast)
                yield from tenant.change(now)
            if self._random.randrange(self._usage_a_change * 20) == 0:
                yield self._bad.fact(self._random.choice(self._cast).organization_id)
            yield self._usage(now)

    def arrival(self, now: datetime) -> Iterator[Message]:
        """An organization whose usage came before it was known: one event is sent again after it,
        the others wait for a replay."""
        early = self._event(self._newcomer, now, meter="ai.tokens")
        yield early
        for _ in range(20):
            yield self._event(self._newcomer, now, meter="ai.tokens")
        yield from self._newcomer.opening(now)
        yield early

    def mending(self, now: datetime) -> Iterator[Message]:
        """What lets a replay of dead letters bring some of them back: half of the organizations
        get a price that was missing."""
        for tenant in self._cast[::2]:
            yield tenant.price("unpriced", now)

    def largest(self) -> list[Message]:
        """Records of the largest size there is; each to be sent alone."""
        return self._bad.largest(self._random.choice(self._cast).organization_id)

    def _usage(self, now: datetime) -> Message:
        tenant = self._cast[int(self._random.paretovariate(0.5) - 1) % len(self._cast)]
        what = self._random.random()
        if what < 0.05 and self._recent:
            return self._random.choice(self._recent)
        if what < 0.06 and self._recent:
            return self._conflicting(self._random.choice(self._recent))
        if what < 0.08:
            return self._bad.usage(tenant.organization_id, now)
        if what < 0.085:
            nobody = Tenant(f"org_unknown_{self._random.randrange(9)}", self._random)
            return self._event(nobody, now)
        if what < 0.09:
            return self._event(tenant, now, meter="unpriced")
        message = self._event(tenant, now)
        if what < 0.10:
            message = self._binary(message)
        elif what < 0.11:
            message = message._replace(partition=self._random.randrange(self._partitions))
        self._recent.append(message)
        return message

    def _event(self, tenant: Tenant, now: datetime, meter: str = "") -> Message:
        self._serial += 1
        random = self._random
        data: dict[str, Any] = {}
        event: dict[str, Any] = {
            "specversion": "1.0",
            "id": f"e{self._serial}",
            "source": random.choice(("editor", "api/eu-1")),
            "type": meter or random.choices(list(METERS), weights=(60, 25, 10, 3, 2))[0],
            "subject": self._subject(tenant),
            "organizationid": tenant.organization_id,
            "data": data,
        }
        data["quantity"] = self._quantity(str(event["type"]))
        if tenant.websites and random.random() < 0.6:
            data["website_id"] = random.choice([*tenant.websites, "web_unknown"])
        if random.random() < 0.3:
            data["dimensions"] = {"model": random.choice(("small", "large")), "ø": "ü"}
        time = self._time(now)
        if time is not None:
            event["time"] = time
        if random.random() < 0.1:
            del event["organizationid"]
        return Message(USAGE, tenant.organization_id.encode(), _encode(event))

    def _subject(self, tenant: Tenant) -> str:
        what = self._random.random()
        if not tenant.members or what < 0.05:
            return f"stranger_{self._random.randrange(5)}"
        if tenant.addresses and what < 0.2:
            return self._random.choice(tenant.addresses).upper()
        return self._random.choice(tenant.members)

    def _quantity(self, meter: str) -> int | str:
        if meter == "dear":
            return self._random.choice((0, 1, 10, 5_000_000))
        if self._random.random() < 0.3:
            return f"{self._random.uniform(0, 500):.{self._random.randrange(7)}f}"
        return self._random.randrange(5_000)

    def _time(self, now: datetime) -> datetime | None:
        """Mostly now, some a little or days late, some just ahead, some not said."""
        what = self._random.random()
        if what < 0.1:
            return None
        if what < 0.7:
            return now - timedelta(seconds=self._random.uniform(0, 3))
        if what < 0.9:
            return now - timedelta(seconds=self._random.uniform(0, 900))
        if what < 0.93:
            return now + timedelta(seconds=self._random.uniform(0, 100))
        return now - timedelta(days=self._random.uniform(0, 33))

    def _conflicting(self, message: Message) -> Message:
        """The same identity with another quantity."""
        assert message.value is not None
        if message.headers:
            return message._replace(value=_encode({"quantity": 123_456}))
        event = msgspec.json.decode(message.value)
        event["data"]["quantity"] = 123_456
        return message._replace(value=_encode(event))

    def _binary(self, message: Message) -> Message:
        """The same event as a CloudEvent in binary mode."""
        assert message.value is not None
        event = msgspec.json.decode(message.value)
        data = event.pop("data")
        headers = tuple((f"ce_{name}", text.encode()) for name, text in event.items())
        return message._replace(value=_encode(data), headers=headers)
