"""ClickHouse against Kafka and the model: every row through the views, and the report's sums."""

from base64 import b64encode
from collections import Counter
from datetime import datetime, timedelta
from typing import Any, Final

from cli.verification.differences import Differences
from cli.verification.outputs import EPOCH, name_of
from cli.verification.replay import Verdict
from cli.verification.topic_contents import Contents
from cli.verification.warehouse_contents import rows
from schemas import headers, topics
from schemas.codec import decode_fact_applied, decode_posting, decode_rated
from schemas.records import UNASSIGNED, RatedEvent
from schemas.settings import Settings

RATED_COLUMNS: Final = (
    "input_offset",
    "organization_id",
    "source",
    "event_id",
    "revision",
    "meter",
    "subject",
    "member_id",
    "resolved_by",
    "website_id",
    "dimensions",
    "stamped_group_id",
    "funding_group_id",
    "membership_version",
    "settings_version",
    "price_version",
    "price_micro",
    "quantity_micro",
    "cost_micro",
    "website_debit_micro",
    "group_debit_micro",
    "overage_micro",
    "credit_price_micro",
    "currency",
    "website_balance_micro",
    "group_balance_micro",
)
RATED_TIMES: Final = ("event_time", "appended_at", "recorded_at")


def compare_partition(settings: Settings, contents: Contents, differences: Differences) -> int:
    """Rows of one partition, each with the record it came from. Returns how many rated rows."""
    times = ", ".join(f"toUnixTimestamp64Micro({name})" for name in RATED_TIMES)
    allocations = "arrayMap(a -> (a.pool, a.grant_id, a.amount_micro), allocations)"
    actual = rows(
        settings,
        f"SELECT {', '.join(RATED_COLUMNS)}, {times}, {allocations} FROM usage_rated "  # noqa: S608
        f"WHERE input_partition = {contents.partition} ORDER BY input_offset",
    )
    due = {}
    for record in contents.records[topics.USAGE_RATED]:
        row = decode_rated(record.value)
        due[row.input_offset] = row
    for values in actual:
        due_row = due.pop(values[0], None)
        if due_row is None:
            differences.note_duplicated(f"ClickHouse has a rated row {values[:4]} of no record")
        elif values != _values(due_row):
            differences.note_wrong(
                f"ClickHouse has {values} for {name_of(due_row)}, but {_values(due_row)} is due"
            )
    for due_row in due.values():
        differences.note_lost(f"{name_of(due_row)} is rated, but not in ClickHouse")
    _compare_facts(settings, contents, differences)
    _compare_dead_letters(settings, contents, differences)
    return len(actual)


def compare_ledger(settings: Settings, every: list[Contents], differences: Differences) -> None:
    """All postings of all partitions; and what the sink put aside, which must be nothing."""
    due: Counter[Any] = Counter()
    for contents in every:
        for record in contents.records[topics.LEDGER]:
            each = decode_posting(record.value)
            due[
                each.organization_id,
                each.entry_id,
                each.leg,
                each.account,
                each.amount_micro,
                each.balance_after_micro,
            ] += 1
    actual = Counter(
        tuple(values)
        for values in rows(
            settings,
            "SELECT organization_id, entry_id, leg, account, amount_micro, balance_after_micro "
            "FROM ledger",
        )
    )
    _compare_counts("ledger", due, actual, differences)
    for values in rows(settings, "SELECT topic, partition, offset, error FROM sink_rejects FINAL"):
        differences.note_wrong(f"the sink put aside {values}")


def compare_spend(settings: Settings, verdict: Verdict, differences: Differences) -> None:
    """The report by group and meter: deleted groups under Unassigned, from the first day on."""
    due: Counter[tuple[str, str, str]] = Counter()
    for (organization_id, group_id, meter), cost_micro in verdict.spend.items():
        is_deleted = (organization_id, group_id) in verdict.deleted
        due[organization_id, UNASSIGNED if is_deleted else group_id, meter] += cost_micro
    actual = {
        (values[0], values[1], values[2]): int(values[3])
        for values in rows(
            settings,
            "SELECT organization_id, group_id, meter, toString(sum(toInt128(cost_micro))) "
            "FROM spend GROUP BY ALL",
        )
    }
    for key in sorted(set(due) | set(actual)):
        if due[key] != actual.get(key, 0):
            differences.note_wrong(
                f"the report says {actual.get(key)} micro-credits for {key}, but {due[key]} are due"
            )


def _compare_facts(settings: Settings, contents: Contents, differences: Differences) -> None:
    applied = [decode_fact_applied(each.value) for each in contents.records[topics.FACTS_APPLIED]]
    due = Counter((r.organization_id, r.topic, r.version, r.type, r.input_offset) for r in applied)
    actual = Counter(
        tuple(values)
        for values in rows(
            settings,
            "SELECT organization_id, topic, version, type, input_offset "  # noqa: S608
            "FROM facts_applied "
            f"WHERE input_partition = {contents.partition}",
        )
    )
    _compare_counts("facts_applied", due, actual, differences)


def _compare_dead_letters(settings: Settings, contents: Contents, differences: Differences) -> None:
    due = Counter(
        (
            record.offset,
            dict(record.headers)[headers.REASON].decode(),
            b64encode(record.key or b"").decode(),
            b64encode(record.value or b"").decode(),
        )
        for record in contents.records[topics.DEAD_LETTERS]
    )
    actual = Counter(
        tuple(values)
        for values in rows(
            settings,
            "SELECT offset, reason, key_base64, value_base64 FROM dead_letters "  # noqa: S608
            f"WHERE partition = {contents.partition}",
        )
    )
    _compare_counts("dead_letters", due, actual, differences)


def _compare_counts(
    view: str, due: Counter[Any], actual: Counter[Any], differences: Differences
) -> None:
    for values, times in (due - actual).items():
        differences.note_lost(f"{view} in ClickHouse lacks {_short(values)} ({times} times)")
    for values, times in (actual - due).items():
        differences.note_duplicated(
            f"{view} in ClickHouse: {_short(values)} {times} times too many"
        )


def _short(values: Any) -> str:
    text = repr(values)
    return text if len(text) <= 200 else f"{text[:200]}…"


def _values(row: RatedEvent) -> list[Any]:
    times = [_micros(getattr(row, name)) for name in RATED_TIMES]
    allocations = [[each.pool, each.grant_id, each.amount_micro] for each in row.allocations]
    return [*(getattr(row, name) for name in RATED_COLUMNS), *times, allocations]


def _micros(at: datetime) -> int:
    return (at - EPOCH) // timedelta(microseconds=1)
