"""Decides again, without writing anything, usage that the worker refused: with the worker's own
decisions, on the facts that `memberships` holds now. Credits are left out: they never refuse usage.
"""

from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Final

from cli.kafka import read_to_end
from cli.letters import Letter, replay_headers
from schemas.codec import alias_hash
from schemas.settings import Settings
from schemas.topics import MEMBERSHIPS
from streams.decisions.events import Limits, UsageEvent
from streams.decisions.facts import FactInput, decide_fact
from streams.decisions.intake import Intake
from streams.decisions.outcomes import Rejected
from streams.decisions.state import MemoryState, apply_changes
from streams.decisions.usage import UsageContext, decide_usage
from streams.kafka import home_partition

ORGANIZATIONS_MAX: Final = 10_000
"""Organizations whose facts are held in memory; letters of further ones are not judged."""


class Rehearsal:
    """Judges letters of the organizations that it has noted, once it has their facts."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._now = datetime.now(UTC)
        self._intake = Intake(Limits(timedelta(days=settings.max_event_age_days)))
        secret = settings.alias_secret.get_secret_value().encode()
        self._context = UsageContext("usage", 0, partial(alias_hash, secret), self._now)
        self._state = MemoryState()
        self._organizations: set[str] = set()

    def note(self, letter: Letter) -> None:
        """Its organization's facts will be needed."""
        event = self._parse(letter)
        if isinstance(event, UsageEvent) and len(self._organizations) < ORGANIZATIONS_MAX:
            self._organizations.add(event.organization_id)

    async def learn(self) -> None:
        """Reads the facts of the organizations that were noted, up to the end of the topic."""
        keys = {organization.encode() for organization in self._organizations}
        async for record in read_to_end(self._settings, MEMBERSHIPS):
            if record.key not in keys:
                continue
            fact_input = FactInput(
                MEMBERSHIPS,
                record.partition,
                record.offset,
                record.key,
                record.value,
                self._now,
                home_partition(record.key, self._settings.partitions),
            )
            apply_changes(self._state, decide_fact(fact_input, self._state).changes)

    def judge(self, letter: Letter) -> Rejected | None:
        """Why it would be refused; None where it would not."""
        event = self._parse(letter)
        if isinstance(event, Rejected):
            return event
        if event.organization_id not in self._organizations:
            return None
        outcome = decide_usage(event, letter.original_offset, self._state, self._context)
        return outcome if isinstance(outcome, Rejected) else None

    def _parse(self, letter: Letter) -> UsageEvent | Rejected:
        return self._intake.parse(letter.value, letter.key, replay_headers(letter), self._now)
