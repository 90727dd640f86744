"""`metering dead-letters list|show|replay`."""

import asyncio
import json
import re
import sys
import time
from collections import Counter, deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Annotated, Any, Final, Literal

import typer
from aiokafka import AIOKafkaProducer
from aiokafka.errors import KafkaError

from cli.command_line import Commands, OnlyOrganizationOption
from cli.configuration import load_settings
from cli.errors import Failure, one_line, printable
from cli.kafka import connected, producer_settings
from cli.letters import (
    Letter,
    ReplayRecord,
    is_wanted,
    read_letters,
    replay_headers,
    text_of,
    why_not_replayed,
)
from cli.tables import table, text
from schemas.reasons import Reason
from schemas.settings import Settings
from schemas.topics import USAGE
from streams.kafka import home_partition
from streams.wire.record_batch import RecordBatch, is_text

if TYPE_CHECKING:
    from streams.decisions.outcomes import Rejected

BATCH: Final = 500
"""Letters sent and acknowledged together."""
SEND_TIMEOUT_S: Final = 60.0
SHOWN_BYTES: Final = 4_096
NAMED_MAX: Final = 50
"""Letters that are named one by one, the rest is counted."""

app = Commands("What was refused, with its reason.")

ReasonOption = Annotated[
    Reason | None,
    typer.Option(metavar="REASON", help="Only this reason, as `list` shows it: no_price."),
]


def _letter_id(given: str) -> str:
    if not re.fullmatch(r"[0-9]+:[0-9]+", given):
        raise typer.BadParameter(f"{given!r} is no dead letter's id: write it as 3:17")
    return given


@dataclass(slots=True)
class ReplayOutcome:
    """Letters by what became of them."""

    replayed: int = 0
    replayed_before: int = 0
    skipped: Counter[str] = field(default_factory=Counter)
    """By why they are not replayed."""


@app.command("list")
def list_letters(
    reason: ReasonOption = None,
    organization: OnlyOrganizationOption = None,
    limit: Annotated[int, typer.Option(min=1, max=100_000, help="The newest so many.")] = 50,
    output: Annotated[Literal["table", "json"], typer.Option("--format")] = "table",
) -> None:
    """The newest dead letters, and how many there are of each reason."""
    settings = load_settings()
    counts, letters = asyncio.run(newest(settings, reason, organization, limit))
    record = ReplayRecord(settings)
    if output == "json":
        for letter in letters:
            typer.echo(json.dumps({**letter.as_dict(), "replayed": record.has(letter)}))
        return
    rows = [
        [
            letter.name,
            text_of(letter.lettered_ms),
            letter.organization_id,
            letter.reason,
            "yes" if record.has(letter) else "",
            letter.detail,
        ]
        for letter in letters
    ]
    titles = ("ID", "Refused at", "Organization", "Reason", "Replayed", "Detail")
    if rows:
        cleaned = [[printable(cell) for cell in row] for row in rows]
        typer.echo("\n".join(table([text(title) for title in titles], cleaned)))
    total = sum(counts.values())
    by_reason = ", ".join(f"{count} {name}" for name, count in counts.most_common())
    noun = "dead letter" if total == 1 else "dead letters"
    typer.echo(f"{total} {noun}{': ' if total else ''}{by_reason}")


@app.command()
def show(
    name: Annotated[
        str, typer.Argument(metavar="ID", parser=_letter_id, help="As `list` shows it: 3:17.")
    ],
    raw: Annotated[bool, typer.Option("--raw", help="Only the original bytes.")] = False,
) -> None:
    """One dead letter: why, from where, its headers and its bytes."""
    letters = asyncio.run(with_name(load_settings(), name))
    if raw:
        for letter in letters:
            sys.stdout.buffer.write(letter.value or b"")
        return
    letter = letters[0]
    for key, value in letter.as_dict().items():
        typer.echo(printable(f"{key:<16} {value}"))
    for header, content in letter.original_headers:
        typer.echo(
            printable(f"{'header':<16} {header}: {(content or b'').decode('utf-8', 'replace')}")
        )
    value = letter.value
    if value is None:
        typer.echo("no value")
        return
    typer.echo(printable(value[:SHOWN_BYTES].decode("utf-8", "backslashreplace")))
    if len(value) > SHOWN_BYTES:
        typer.echo(f"… {len(value) - SHOWN_BYTES:,} more bytes (--raw shows all)")


@app.command()
def replay(
    names: Annotated[
        list[str] | None,
        typer.Argument(metavar="[ID]...", parser=_letter_id, help="As `list` shows them: 3:17."),
    ] = None,
    reason: ReasonOption = None,
    organization: OnlyOrganizationOption = None,
    everything: Annotated[bool, typer.Option("--all", help="All that may be replayed.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what would be.")] = False,
) -> None:
    """Send usage back that may be accepted now: after a price was set, an organization created."""
    chosen = frozenset(names or ())
    if not (chosen or reason or organization or everything):
        raise typer.BadParameter("say which: ids, --reason, --organization, or --all")

    def is_chosen(letter: Letter) -> bool:
        return is_wanted(letter, reason, organization) and (not chosen or letter.name in chosen)

    settings = load_settings()
    outcome = asyncio.run(replay_chosen(settings, is_chosen, dry_run=dry_run))
    would = "would be " if dry_run else ""
    typer.echo(f"{outcome.replayed} {would}replayed to `usage`")
    if dry_run and outcome.replayed:
        _say_refused_again(asyncio.run(rehearse(settings, is_chosen)))
    if outcome.replayed_before:
        typer.echo(f"{outcome.replayed_before} were replayed before")
    for why, count in outcome.skipped.most_common():
        typer.echo(f"{count} not: {why}")
    if chosen and not (outcome.replayed or outcome.replayed_before or outcome.skipped):
        raise Failure(f"no such dead letter: {', '.join(sorted(chosen))}")


def _say_refused_again(refused: "list[tuple[Letter, Rejected]]") -> None:
    """By what the worker knows now; an event that was charged meanwhile is a duplicate, free."""
    by_reason = Counter(rejected.reason.value for _, rejected in refused)
    counts = ", ".join(f"{count} {reason}" for reason, count in by_reason.most_common())
    typer.echo(f"{len(refused)} of them would be refused again{': ' if counts else ''}{counts}")
    rows = [
        [letter.name, letter.organization_id, rejected.reason.value, rejected.detail]
        for letter, rejected in refused[:NAMED_MAX]
    ]
    if rows:
        columns = [text(title) for title in ("ID", "Organization", "Reason", "Detail")]
        cleaned = [[printable(cell) for cell in row] for row in rows]
        typer.echo("\n".join(table(columns, cleaned)))
    if len(refused) > NAMED_MAX:
        typer.echo(f"… and {len(refused) - NAMED_MAX:,} more")


async def rehearse(
    settings: Settings, is_chosen: Callable[[Letter], bool]
) -> "list[tuple[Letter, Rejected]]":
    """The chosen letters that a replay would bring back here, and why. Sends nothing."""
    from cli.rehearsal import Rehearsal

    rehearsal, record = Rehearsal(settings), ReplayRecord(settings)
    now_ms = int(time.time() * 1000)

    def would_be_sent(letter: Letter) -> bool:
        is_due = letter.is_first_part and is_chosen(letter) and not record.has(letter)
        return is_due and not why_not_replayed(letter, settings, now_ms)

    async for letter in read_letters(settings):
        if would_be_sent(letter):
            rehearsal.note(letter)
    await rehearsal.learn()
    refused: list[tuple[Letter, Rejected]] = []
    async for letter in read_letters(settings):
        if would_be_sent(letter) and (rejected := rehearsal.judge(letter)):
            refused.append((letter, rejected))
    return refused


async def newest(
    settings: Settings, reason: Reason | None, organization: str | None, limit: int
) -> tuple[Counter[str], list[Letter]]:
    """How many there are of each reason, and the latest so many, oldest first."""
    counts: Counter[str] = Counter()
    letters: deque[Letter] = deque()
    async for letter in read_letters(settings):
        if not letter.is_first_part or not is_wanted(letter, reason, organization):
            continue
        counts[letter.reason] += 1
        letters.append(letter)
        if len(letters) >= 2 * limit:
            letters = deque(_last(letters, limit))
    return counts, _last(letters, limit)


def _last(letters: "deque[Letter]", limit: int) -> list[Letter]:
    in_order = sorted(letters, key=lambda letter: (letter.lettered_ms, letter.partition))
    return in_order[-limit:]


async def with_name(settings: Settings, name: str) -> list[Letter]:
    """The letter; all its parts where it was cut."""
    letters: list[Letter] = []
    async for letter in read_letters(settings):
        first = letters[0] if letters else None
        if letter.name == name or (first is not None and _is_part_of(letter, first)):
            letters.append(letter)
    if not letters:
        raise Failure(f"there is no dead letter {name}")
    return letters


def _is_part_of(letter: Letter, first: Letter) -> bool:
    return bool(first.part) and (
        (letter.topic, letter.original_partition, letter.original_offset)
        == (first.topic, first.original_partition, first.original_offset)
    )


async def replay_chosen(
    settings: Settings, is_chosen: Callable[[Letter], bool], *, dry_run: bool
) -> ReplayOutcome:
    outcome = ReplayOutcome()
    record = ReplayRecord(settings)
    now_ms = int(time.time() * 1000)
    waiting: list[Letter] = []
    async with connected(AIOKafkaProducer(**producer_settings(settings)), settings) as producer:
        async for letter in read_letters(settings):
            if not letter.is_first_part or not is_chosen(letter):
                continue
            why_not = why_not_replayed(letter, settings, now_ms)
            if why_not:
                outcome.skipped[why_not] += 1
            elif record.has(letter):
                outcome.replayed_before += 1
            else:
                waiting.append(letter)
            if len(waiting) >= BATCH:
                await _settle(producer, settings, record, waiting, outcome, dry_run=dry_run)
        await _settle(producer, settings, record, waiting, outcome, dry_run=dry_run)
    return outcome


async def _settle(
    producer: AIOKafkaProducer,
    settings: Settings,
    record: ReplayRecord,
    waiting: list[Letter],
    outcome: ReplayOutcome,
    *,
    dry_run: bool,
) -> None:
    """Send, wait until acknowledged, then note it: a crash in between repeats, never forgets."""
    if waiting and not dry_run:
        try:
            async with asyncio.timeout(SEND_TIMEOUT_S):
                sent = [await _send(producer, settings, letter) for letter in waiting]
                await asyncio.gather(*sent)
        except (KafkaError, TimeoutError) as error:
            raise Failure(
                f"{outcome.replayed} replayed; the next {len(waiting)} were not acknowledged "
                f"({one_line(error)}): run it again, nothing is charged twice"
            ) from None
        record.add(waiting)
    outcome.replayed += len(waiting)
    waiting.clear()


async def _send(
    producer: AIOKafkaProducer, settings: Settings, letter: Letter
) -> "asyncio.Future[Any]":
    topic, headers = settings.topic(USAGE), replay_headers(letter)
    # Without a key nothing else would send all of an organization's events the same way.
    partition = letter.original_partition if letter.key is None else None
    sent: asyncio.Future[Any]
    if is_text(headers):
        sent = await producer.send(
            topic, letter.value, key=letter.key, headers=headers, partition=partition
        )
        return sent
    batch = RecordBatch(1, None, letter.lettered_ms, takes_any_name=True, is_transactional=False)
    batch.add(letter.key, letter.value, headers)
    if partition is None:
        partition = home_partition(letter.key or b"", settings.partitions)
    sent = await producer.send_batch(batch, topic, partition=partition)
    return sent
