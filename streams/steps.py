"""The steps: gather, decide, apply. Each takes records, calls the pure decisions, fills the
transaction. Nothing here awaits: the runtime commits what a step has filled in.

A record ends at worst as its own dead letter. Only `StoreError` passes through: the disk's fault.
"""

from collections.abc import Iterable, Sequence
from datetime import datetime, timedelta
from functools import partial
from itertools import islice
from typing import Final

from schemas import headers, topics
from schemas.codec import alias_hash, decode_state, decode_state_key, encode
from schemas.codec import reusing_encoder as row_encoder
from schemas.reasons import Reason
from schemas.records import RatedEvent
from schemas.settings import Settings
from streams.dead_letters import dead_letter
from streams.decisions.dedupe import Verdict, judge
from streams.decisions.events import EPOCH, Limits, UsageEvent
from streams.decisions.facts import FactInput, decide_fact
from streams.decisions.forfeits import decide_forfeit
from streams.decisions.intake import Intake
from streams.decisions.state import apply_changes
from streams.decisions.usage import UsageContext, apply_rated, decide_usage
from streams.exactly_once import Record, StoreError, Transaction
from streams.internal_errors import InternalErrors
from streams.kafka import home_partition
from streams.wire.record_batch import Headers, size_of

PARTITION_CACHE_ENTRIES: Final = 50_000
USAGE_RECORD_BYTES: Final = topics.all_topics()[topics.USAGE].max_message_bytes
SLICE_RECORDS: Final = 256
"""Unpacked, parsed, looked up and decided together: few enough to stay in the processor's cache
(a whole batch cost 3 µs more of CPU an event), and enough for numpy to look up at once."""
FORFEITS_A_TRANSACTION: Final = 500
"""Entries of the clock's index; what else is due comes in further transactions."""
LATEST_MS: Final = 253_402_300_799_999
"""The end of the year 9999."""
EXPIRY_PREFIX: Final = '["expiry","'


class UsageStep:
    """Decides a batch of usage records."""

    def __init__(self, settings: Settings) -> None:
        self._intake = Intake(
            Limits(
                timedelta(days=settings.max_event_age_days),
                max_replay_age=timedelta(days=settings.dedupe_window_days),
            )
        )
        self._alias_hash = partial(alias_hash, settings.alias_secret.get_secret_value().encode())
        self._topic = settings.topic(topics.USAGE)
        self._partitions = settings.partitions
        self._partition_of: dict[str, int] = {}
        self._contexts: dict[int, UsageContext] = {}
        self._encode = row_encoder()
        self._errors = InternalErrors()

    def __call__(self, records: Iterable[Record], transaction: Transaction) -> None:
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
                except StoreError:
                    raise
                except Exception as error:  # noqa: BLE001 - one event's bug must not stop the others
                    detail = self._errors.note(transaction, error)
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
        self, records: Sequence[Record], transaction: Transaction
    ) -> tuple[list[Record], list[UsageEvent]]:
        """The records that are well-formed and belong here, and their events."""
        parse = self._intake.parse
        here, partition_of = transaction.partition, self._partition_of
        kept, events = [], []
        timestamp_ms, appended_at = -1, transaction.now
        for record in records:
            if record.timestamp != timestamp_ms:
                timestamp_ms = record.timestamp
                appended_at = instant(timestamp_ms)
            try:
                event = parse(record.value, record.key, record.headers, appended_at)
            except Exception as error:  # noqa: BLE001 - as in `__call__`
                detail = self._errors.note(transaction, error)
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
        self, record: Record, event: UsageEvent, seen_content: int, transaction: Transaction
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

    def _is_here(self, record: Record, event: UsageEvent, transaction: Transaction) -> bool:
        """Whether the event is in its organization's partition; sends it on if it is not."""
        organization_id = event.organization_id
        partition = self._partition_of.get(organization_id)
        if partition is None:
            if len(self._partition_of) >= PARTITION_CACHE_ENTRIES:
                self._partition_of.clear()
            partition = home_partition(organization_id.encode(), self._partitions)
            self._partition_of[organization_id] = partition
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
        added: Headers = [(headers.FORWARDED, str(transaction.partition).encode())]
        if all(name != topics.ORIGINAL_APPEND_TIME_HEADER for name, _ in record.headers):
            added.append((topics.ORIGINAL_APPEND_TIME_HEADER, original))
        key, sent_headers = organization_id.encode(), [*record.headers, *added]
        if size_of(key, record.value, sent_headers) > USAGE_RECORD_BYTES:
            detail = (
                f"Organization {organization_id!r} belongs to partition {partition}; with its "
                "headers the event is too large to be forwarded there."
            )
            self._refuse(transaction, record, Reason.TOO_LARGE, detail)
            return False
        transaction.emit(topics.USAGE, key, record.value, sent_headers, partition=partition)
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

    def _refuse(
        self, transaction: Transaction, record: Record, reason: Reason, detail: str
    ) -> None:
        dead_letter(transaction, topics.USAGE, record, reason, detail)


class FactStep:
    """Decides a batch of one fact topic's records."""

    def __init__(self, topic: str, settings: Settings) -> None:
        self._topic = topic
        self._partitions = settings.partitions
        self._errors = InternalErrors()

    def __call__(self, records: Iterable[Record], transaction: Transaction) -> None:
        for record in records:
            try:
                self._decide(record, transaction)
            except StoreError:
                raise
            except Exception as error:  # noqa: BLE001 - one fact's bug must not stop the others
                detail = self._errors.note(transaction, error)
                dead_letter(transaction, self._topic, record, Reason.INTERNAL_ERROR, detail)

    def _decide(self, record: Record, transaction: Transaction) -> None:
        fact_input = FactInput(
            self._topic,
            transaction.partition,
            record.offset,
            record.key,
            record.value,
            transaction.now,
            home_partition(record.key or b"", self._partitions),
        )
        outcome = decide_fact(fact_input, transaction.state)
        # The row is encoded before anything is changed, so that a failure has changed nothing.
        rows = [(topics.LEDGER, encode(posting)) for posting in outcome.postings]
        if outcome.applied is not None:
            rows.append((topics.FACTS_APPLIED, encode(outcome.applied)))
        apply_changes(transaction.state, outcome.changes)
        if outcome.rejected is not None:
            reason, detail = outcome.rejected.reason, outcome.rejected.detail
            dead_letter(transaction, self._topic, record, reason, detail)
        for topic, row in rows:
            transaction.emit(topic, record.key, row)
        if outcome.applied is not None:
            transaction.count(f"facts:{self._topic}")
            if outcome.late:
                transaction.count(f"late_facts:{self._topic}")


class ForfeitStep:
    """Once a minute a partition: forfeits what expired longer ago than the late grace, and closes
    groups whose deletion was published ahead of its time."""

    def __init__(self, settings: Settings) -> None:
        self._late_grace = timedelta(seconds=settings.late_grace_s)
        self._errors = InternalErrors()

    def __call__(self, transaction: Transaction, struck_at: datetime) -> bool:
        """Whether more is due than one transaction takes: then this is to be called again."""
        before = f"{EXPIRY_PREFIX}{struck_at:%Y-%m-%dT%H:%M:%S.%fZ}".encode()
        decided = 0
        # The scan sees what is committed, so not its own deletions.
        for raw_key, raw in transaction.scan(EXPIRY_PREFIX.encode(), before):
            if decided == FORFEITS_A_TRANSACTION:
                return True
            try:
                decided += self._decide(raw_key, raw, transaction, struck_at)
            except StoreError:
                raise
            except Exception as error:  # noqa: BLE001 - one entry's bug must not stop the others
                # There is no record to refuse: the entry stays, and is tried again.
                self._errors.note(transaction, error)
        return False

    def _decide(
        self, raw_key: bytes, raw: bytes, transaction: Transaction, struck_at: datetime
    ) -> int:
        """1 where the entry was due, else 0."""
        key, due = decode_state_key(raw_key), decode_state("expiry", raw)
        decided = decide_forfeit(
            key, due, transaction.state, struck_at, transaction.now, self._late_grace
        )
        if decided is None:
            return 0
        rows = [(row.organization_id.encode(), encode(row)) for row in decided.postings]
        apply_changes(transaction.state, decided.changes)
        for organization_key, row in rows:
            transaction.emit(topics.LEDGER, organization_key, row)
        for posting in decided.postings:
            if posting.account == "forfeited":
                transaction.count("forfeited", posting.amount_micro)
        return 1


def instant(milliseconds: int) -> datetime:
    """A record's time; one beyond what a datetime holds becomes the nearest that it does."""
    return EPOCH + timedelta(milliseconds=min(max(milliseconds, 0), LATEST_MS))
