"""The agents: gather, decide, apply. Each takes a batch, calls the pure decisions, fills the
transaction. Nothing here awaits: the runtime commits what a step has filled in.
"""

import traceback
from collections.abc import Callable, Iterable, Sequence
from datetime import UTC, datetime, timedelta
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any, Final

import faust
import structlog
from aiokafka.partitioner import murmur2

from schemas import headers, topics
from schemas.codec import alias_hash, decode_state, decode_state_key, encode
from schemas.codec import reusing_encoder as row_encoder
from schemas.reasons import Reason
from schemas.records import RatedEvent
from schemas.settings import Settings
from streams.dead_letters import dead_letter
from streams.decisions.dedupe import Verdict, judge
from streams.decisions.events import Limits, UsageEvent
from streams.decisions.facts import FactInput, decide_fact
from streams.decisions.forfeits import decide_forfeit
from streams.decisions.intake import Intake
from streams.decisions.state import apply_changes
from streams.decisions.usage import UsageContext, apply_rated, decide_usage
from streams.exactly_once import Batch, ExactlyOnce, Transaction

log = structlog.get_logger()

INTERNAL_ERRORS_LIMIT: Final = 100
INTERNAL_ERRORS_WINDOW: Final = timedelta(minutes=1)
PARTITION_CACHE_ENTRIES: Final = 50_000
SLICE_RECORDS: Final = 256
"""Unpacked, parsed, looked up and decided together: few enough to stay in the processor's cache
(a whole batch cost 3 µs more of CPU an event), and enough for numpy to look up at once."""
EXPIRY_PREFIX: Final = '["expiry","'


class TooManyInternalErrors(RuntimeError):
    """A bug that hits this often is not to be worked around event by event."""


class InternalErrors:
    """Counts decisions that raised, over a sliding minute."""

    def __init__(self) -> None:
        self._times: list[datetime] = []

    def note(self, now: datetime, error: Exception) -> str:
        """The detail for the dead letter. Raises TooManyInternalErrors beyond the limit."""
        frames = traceback.extract_tb(error.__traceback__)
        where = [f"{Path(frame.filename).name}:{frame.lineno}" for frame in frames]
        log.error("a decision failed", error=repr(error), where=where)
        self._times = [at for at in self._times if at > now - INTERNAL_ERRORS_WINDOW]
        self._times.append(now)
        if len(self._times) > INTERNAL_ERRORS_LIMIT:
            raise TooManyInternalErrors(
                f"{len(self._times)} decisions failed within a minute, the last with {error!r}"
            )
        return f"The decision failed with {type(error).__name__}; this is a bug of the pipeline."


class UsageStep:
    """Decides a batch of usage records."""

    def __init__(self, settings: Settings) -> None:
        self._intake = Intake(Limits(timedelta(days=settings.max_event_age_days)))
        self._alias_hash = partial(alias_hash, settings.alias_secret.get_secret_value().encode())
        self._topic = settings.topic(topics.USAGE)
        self._partitions = settings.partitions
        self._partition_of: dict[str, int] = {}
        self._contexts: dict[int, UsageContext] = {}
        self._encode = row_encoder()
        self._errors = InternalErrors()

    def __call__(self, records: Iterable[Any], transaction: Transaction) -> None:
        """The hot loop: a call here costs as much as what it would tidy away."""
        context = self._context(transaction)
        append = transaction.appender(topics.USAGE_RATED)
        seen, state, encode_row = transaction.seen, transaction.state, self._encode
        rated_events = unknown_members = website_micro = group_micro = overage_micro = 0
        unpacking = iter(records)
        while some := list(islice(unpacking, SLICE_RECORDS)):
            kept, events = self._parse(some, transaction)
            previous = transaction.seen_before([event.identity for event in events])
            for record, event, seen_content in zip(kept, events, previous, strict=True):
                identity = event.identity
                try:
                    if seen_content or identity in seen:
                        self._judge(record, event, seen_content, transaction)
                        continue
                    rated = decide_usage(event, record.offset, state, context)
                    # In this order: isinstance is quick for the class itself, and slow for any
                    # other one that has a metaclass, as structs do.
                    if not isinstance(rated, RatedEvent):
                        self._refuse(transaction, record, rated.reason, rated.detail)
                        continue
                    value = encode_row(rated)
                    apply_rated(rated, state)
                except Exception as error:  # noqa: BLE001 - one event's bug must not stop the others
                    detail = self._errors.note(transaction.now, error)
                    self._refuse(transaction, record, Reason.INTERNAL_ERROR, detail)
                    continue
                append(record.key or event.organization_id.encode(), value)
                seen[identity] = event.content
                rated_events += 1
                website_micro += rated.website_debit_micro
                group_micro += rated.group_debit_micro
                overage_micro += rated.overage_micro
                if rated.resolved_by == "unknown":
                    unknown_members += 1
        transaction.count("rated", rated_events)
        transaction.count("unknown_members", unknown_members)
        transaction.count("debited:website", website_micro)
        transaction.count("debited:group", group_micro)
        transaction.count("overage", overage_micro)

    def _parse(
        self, records: Sequence[Any], transaction: Transaction
    ) -> tuple[list[Any], list[UsageEvent]]:
        """The records that are well-formed and belong here, and their events."""
        parse = self._intake.parse
        here, partition_of = transaction.partition, self._partition_of
        kept, events = [], []
        timestamp_ms, appended_at = -1, transaction.now
        for record in records:
            if record.timestamp != timestamp_ms:
                timestamp_ms = record.timestamp
                appended_at = datetime.fromtimestamp(timestamp_ms / 1000, UTC)
            try:
                event = parse(record.value, record.key, record.headers, appended_at)
            except Exception as error:  # noqa: BLE001 - as in `__call__`
                detail = self._errors.note(transaction.now, error)
                self._refuse(transaction, record, Reason.INTERNAL_ERROR, detail)
                continue
            if not isinstance(event, UsageEvent):
                self._refuse(transaction, record, event.reason, event.detail)
            elif partition_of.get(event.organization_id) == here or self._is_here(
                record, event, transaction
            ):
                kept.append(record)
                events.append(event)
        return kept, events

    def _judge(
        self, record: Any, event: UsageEvent, seen_content: int, transaction: Transaction
    ) -> None:
        seen_content = seen_content or transaction.seen[event.identity]
        if judge(seen_content, event.content) is Verdict.DUPLICATE:
            transaction.count("duplicates")
            return
        detail = (
            f"An event with id {event.event_id!r} of source {event.source!r} was already charged "
            "with other content; it is charged as it was first."
        )
        self._refuse(transaction, record, Reason.CONFLICT, detail)

    def _is_here(self, record: Any, event: UsageEvent, transaction: Transaction) -> bool:
        """Whether the event is in its organization's partition; sends it on if it is not."""
        organization_id = event.organization_id
        partition = self._partition_of.get(organization_id)
        if partition is None:
            if len(self._partition_of) >= PARTITION_CACHE_ENTRIES:
                self._partition_of.clear()
            hashed = murmur2(organization_id.encode()) & 0x7FFFFFFF
            partition = self._partition_of[organization_id] = hashed % self._partitions
        if partition == transaction.partition:
            return True
        if any(name == headers.FORWARDED for name, _ in record.headers):
            detail = (
                f"Organization {organization_id!r} belongs to partition {partition}; the event was "
                f"forwarded once and came to {transaction.partition}: partition counts differ."
            )
            self._refuse(transaction, record, Reason.WRONG_PARTITION, detail)
            return False
        original = str(record.timestamp).encode()
        added = [(headers.FORWARDED, str(transaction.partition).encode())]
        if all(name != topics.ORIGINAL_APPEND_TIME_HEADER for name, _ in record.headers):
            added.append((topics.ORIGINAL_APPEND_TIME_HEADER, original))
        transaction.emit(
            topics.USAGE,
            organization_id.encode(),
            record.value,
            [*record.headers, *added],
            partition=partition,
        )
        transaction.count("misrouted")
        return False

    def _context(self, transaction: Transaction) -> UsageContext:
        context = self._contexts.get(transaction.partition)
        if context is None:
            context = self._contexts[transaction.partition] = UsageContext(
                self._topic, transaction.partition, self._alias_hash, transaction.now
            )
        context.now = transaction.now
        return context

    def _refuse(self, transaction: Transaction, record: Any, reason: Reason, detail: str) -> None:
        dead_letter(transaction, topics.USAGE, record, reason, detail)


class FactStep:
    """Decides a batch of one fact topic's records."""

    def __init__(self, topic: str) -> None:
        self._topic = topic
        self._errors = InternalErrors()

    def __call__(self, records: Iterable[Any], transaction: Transaction) -> None:
        for record in records:
            try:
                self._decide(record, transaction)
            except Exception as error:  # noqa: BLE001 - one fact's bug must not stop the others
                detail = self._errors.note(transaction.now, error)
                dead_letter(transaction, self._topic, record, Reason.INTERNAL_ERROR, detail)

    def _decide(self, record: Any, transaction: Transaction) -> None:
        given = FactInput(
            self._topic,
            transaction.partition,
            record.offset,
            record.key,
            record.value,
            transaction.now,
        )
        outcome = decide_fact(given, transaction.state)
        apply_changes(transaction.state, outcome.changes)
        if outcome.rejected is not None:
            dead_letter(
                transaction, self._topic, record, outcome.rejected.reason, outcome.rejected.detail
            )
        for posting in outcome.postings:
            transaction.emit(topics.LEDGER, posting.organization_id.encode(), encode(posting))
        if outcome.applied is not None:
            applied = outcome.applied
            transaction.emit(topics.FACTS_APPLIED, record.key, encode(applied))
            transaction.count(f"facts:{self._topic}")
            if outcome.late:
                transaction.count(f"late_facts:{self._topic}")


class ForfeitStep:
    """Once a minute a partition: forfeits what expired longer ago than the late grace, and closes
    groups whose deletion was published ahead of its time."""

    def __init__(self, settings: Settings) -> None:
        self._late_grace = timedelta(seconds=settings.late_grace_s)

    def __call__(self, transaction: Transaction) -> None:
        now = transaction.now
        before = f"{EXPIRY_PREFIX}{now:%Y-%m-%dT%H:%M:%S.%fZ}".encode()
        # A list first: the scan must not see its own deletions.
        for raw_key, raw in list(transaction.scan(EXPIRY_PREFIX.encode(), before)):
            key = decode_state_key(raw_key)
            due = decode_state("expiry", raw)
            decided = decide_forfeit(key, due, transaction.state, now, self._late_grace)
            if decided is None:
                continue
            apply_changes(transaction.state, decided.changes)
            for posting in decided.postings:
                transaction.emit(topics.LEDGER, posting.organization_id.encode(), encode(posting))
                if posting.account == "forfeited":
                    transaction.count("forfeited", posting.amount_micro)


def define_agents(
    app: faust.App,
    runtime: ExactlyOnce,
    usage_step: UsageStep,
    fact_step: Callable[[str], FactStep],
) -> None:
    """One ordinary Faust agent for each input topic."""
    steps: dict[str, Any] = {topic: fact_step(topic) for topic in topics.FACTS}
    steps[topics.USAGE] = usage_step
    for topic, step in steps.items():
        _define_agent(app, runtime, topic, step)


def _define_agent(app: faust.App, runtime: ExactlyOnce, topic: str, step: Any) -> None:
    async def decide(batches: Any) -> None:
        batch: Batch
        async for batch in batches:
            runtime.submit(batch, step)

    app.agent(runtime.input(topic), name=topic)(decide)
