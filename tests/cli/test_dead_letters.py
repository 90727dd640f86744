"""Dead letters: listed, shown, and sent back at most once, only where that can help."""

import asyncio
import json
import re
import time
from dataclasses import replace
from datetime import UTC, datetime

import pytest
from aiokafka import AIOKafkaProducer

from cli.dead_letters import newest, replay_chosen, with_name
from cli.kafka import connected, producer_settings
from cli.letters import Letter, read_letters, replay_headers, take_apart, why_not_replayed
from deploy.embedded import EmbeddedKafka
from schemas import codec, headers, records
from schemas.reasons import REPLAYABLE, Reason
from schemas.settings import DAY_S, Settings
from schemas.topics import ORIGINAL_APPEND_TIME_HEADER
from streams.kafka import create_topics, home_partition
from streams.wire.record_batch import RecordBatch
from tests.cli.conftest import RunCommand
from tests.cli.test_emit import everything
from tests.conftest import MakeSettings

APPENDED_MS = int(time.time() - 3600) * 1000
Headers = list[tuple[str, bytes]]


def ours(
    reason: str, topic: str = "usage", part: str = "", appended_ms: int = APPENDED_MS
) -> Headers:
    """The headers that the worker adds."""
    ours_first = [
        (headers.REASON, reason.encode()),
        (headers.DETAIL, b"because"),
        (headers.TOPIC, topic.encode()),
        (headers.PARTITION, b"1"),
        (headers.OFFSET, b"5"),
        (headers.APPEND_TIME_MS, str(appended_ms).encode()),
    ]
    return [*ours_first, (headers.PART, part.encode())] if part else ours_first


@pytest.fixture
async def settings(kafka: EmbeddedKafka, make_settings: MakeSettings) -> Settings:
    own_settings = make_settings()
    await create_topics(own_settings)
    return own_settings


async def put(settings: Settings, *letters: tuple[str, bytes | None, Headers]) -> None:
    options = producer_settings(settings)
    async with connected(AIOKafkaProducer(**options), settings) as producer:
        for organization, value, added in letters:
            await producer.send_and_wait(
                settings.topic("dead-letters"), value, key=organization.encode(), headers=added
            )


async def test_list_counts_and_filters(settings: Settings) -> None:
    await put(
        settings,
        ("org_a", b"1", ours("no_price")),
        ("org_a", b"2", ours("not_json")),
        ("org_b", b"3", ours("no_price")),
    )
    counts, letters = await newest(settings, None, None, 10)
    assert counts == {"no_price": 2, "not_json": 1}
    assert [letter.value for letter in letters] == [b"1", b"2", b"3"]
    counts, letters = await newest(settings, Reason.NO_PRICE, "org_b", 10)
    assert [letter.value for letter in letters] == [b"3"]
    counts, letters = await newest(settings, None, None, 1)
    assert sum(counts.values()) == 3
    assert len(letters) == 1


async def test_a_replay_is_the_original_with_its_first_time_and_happens_once(
    settings: Settings,
) -> None:
    original: Headers = [("ce_id", b"1"), ("reason", b"the product's own")]
    await put(
        settings,
        ("org_a", b"unpriced", [*original, *ours("no_price")]),
        ("org_a", b"broken", ours("not_json")),
        ("org_a", b"a fact", ours("internal_error", "memberships")),
    )
    outcome = await replay_chosen(settings, lambda letter: True, dry_run=True)
    assert outcome.replayed == 1
    assert await everything(settings, "usage") == []
    outcome = await replay_chosen(settings, lambda letter: True, dry_run=False)
    assert (outcome.replayed, sum(outcome.skipped.values())) == (1, 2)
    outcome = await replay_chosen(settings, lambda letter: True, dry_run=False)
    assert (outcome.replayed, outcome.replayed_before) == (0, 1)
    (record,) = await everything(settings, "usage")
    assert (record.key, record.value) == (b"org_a", b"unpriced")
    assert list(record.headers) == [
        *original,
        (ORIGINAL_APPEND_TIME_HEADER, str(APPENDED_MS).encode()),
    ]


def event(event_id: str, meter: str, organization: str = "org_a") -> bytes:
    return json.dumps(
        {
            "specversion": "1.0",
            "id": event_id,
            "source": "test",
            "type": meter,
            "subject": "user_1",
            "organizationid": organization,
            "data": {"quantity": 1},
        }
    ).encode()


async def test_a_dry_run_names_what_would_be_refused_again(
    settings: Settings, run_command: RunCommand
) -> None:
    moment = datetime(2025, 1, 1, tzinfo=UTC)
    facts = (records.OrganizationCreated(), records.PriceSet("ai.tokens", 1_000_000))
    async with connected(AIOKafkaProducer(**producer_settings(settings)), settings) as producer:
        for version, fact in enumerate(facts, 1):
            record = records.MembershipRecord("org_a", version, moment, moment, fact)
            name = settings.topic("memberships")
            await producer.send_and_wait(name, codec.encode(record), key=b"org_a")
    just_now = str(int(time.time() * 1000)).encode()
    refused = [
        (name, just_now if name == headers.APPEND_TIME_MS else value)
        for name, value in ours("no_price")
    ]
    await put(
        settings,
        ("org_a", event("evt_1", "ai.tokens"), refused),
        ("org_a", event("evt_2", "pages"), refused),
        ("org_b", event("evt_3", "ai.tokens", "org_b"), refused),
        ("org_a", event("evt_4", "ai.tokens"), ours("no_price", appended_ms=1_760_000_000_000)),
    )
    outcome = await asyncio.to_thread(
        run_command, "dead-letters", "replay", "--all", "--dry-run", settings=settings
    )
    assert "3 would be replayed" in outcome.stdout
    assert "2 of them would be refused again" in outcome.stdout
    assert "1 not: older than 49 days" in outcome.stdout
    for line in (
        r"org_a .* no_price .*'pages'",
        r"org_b .* unknown_organization",
    ):
        assert re.search(line, outcome.stdout), outcome.stdout
    assert await everything(settings, "usage") == []


async def test_a_replay_keeps_header_names_that_are_no_text(settings: Settings) -> None:
    name = b"\xff\xfe".decode("utf-8", "surrogateescape")
    batch = RecordBatch(1 << 20, None, 1, takes_any_name=True, is_transactional=False)
    assert batch.add(b"org_odd", b"unpriced", [(name, b"x"), *ours("no_price")])
    async with AIOKafkaProducer(**producer_settings(settings)) as producer:
        await (await producer.send_batch(batch, settings.topic("dead-letters"), partition=0))
    outcome = await replay_chosen(
        settings, lambda letter: letter.organization_id == "org_odd", dry_run=False
    )
    assert outcome.replayed == 1
    (record,) = [each for each in await everything(settings, "usage") if each.key == b"org_odd"]
    assert next(iter(record.headers)) == (name, b"x")
    assert record.partition == home_partition(b"org_odd", settings.partitions)


async def test_a_letter_of_a_replay_keeps_the_first_time(settings: Settings) -> None:
    first = (ORIGINAL_APPEND_TIME_HEADER, b"123")
    await put(settings, ("org_a", b"1", [first, (headers.FORWARDED, b"1"), *ours("no_price")]))
    _, (letter,) = await newest(settings, None, None, 1)
    assert replay_headers(letter) == [first]


async def test_parts_are_one_letter(settings: Settings) -> None:
    await put(
        settings,
        ("org_a", b"begin", [("part", b"own"), *ours("too_large", part="1/2")]),
        ("org_a", b"end", [("part", b"own"), *ours("too_large", part="2/2")]),
    )
    counts, (letter,) = await newest(settings, None, None, 10)
    assert counts == {"too_large": 1}
    assert letter.original_headers == (("part", b"own"),)
    parts = await with_name(settings, letter.name)
    assert [part.value for part in parts] == [b"begin", b"end"]


def letter(reason: str, *, topic: str = "usage", age_s: float = 0) -> Letter:
    class Record:
        partition, offset, key, value = 0, 0, b"org", b"{}"
        timestamp = int(time.time() * 1000)
        headers = ours(reason, topic, appended_ms=int((time.time() - age_s) * 1000))

    return take_apart(Record)


def test_only_what_may_be_accepted_later_is_replayed(make_settings: MakeSettings) -> None:
    settings, now_ms = make_settings(), int(time.time() * 1000)
    for reason in Reason:
        is_allowed = why_not_replayed(letter(reason.value), settings, now_ms) == ""
        assert is_allowed == (reason in REPLAYABLE)
    assert why_not_replayed(letter("no_price", topic="credits"), settings, now_ms)
    assert why_not_replayed(replace(letter("no_price"), part="1/2"), settings, now_ms)


def test_what_dedupe_may_have_forgotten_is_not_replayed(make_settings: MakeSettings) -> None:
    settings, now_ms = make_settings(), int(time.time() * 1000)
    window_s = settings.dedupe_window_days * DAY_S
    young = letter("no_price", age_s=window_s - 2 * DAY_S)
    old = letter("no_price", age_s=window_s - DAY_S / 2)
    assert why_not_replayed(young, settings, now_ms) == ""
    assert "older than" in why_not_replayed(old, settings, now_ms)


async def test_reading_an_empty_topic_ends(settings: Settings) -> None:
    assert [letter async for letter in read_letters(settings)] == []


async def test_the_commands(settings: Settings, run_command: RunCommand) -> None:
    await put(settings, ("org_a", b'{"n":1}', [("ce_type", b"x"), *ours("no_price")]))

    async def run(*arguments: str) -> str:
        outcome = await asyncio.to_thread(run_command, *arguments, settings=settings)
        assert outcome.returncode == 0, outcome.stderr
        return outcome.stdout

    listed = await run("dead-letters", "list", "--format", "json")
    name = json.loads(listed)["id"]
    letter_text = await run("dead-letters", "show", name)
    assert "ce_type: x" in letter_text
    assert '{"n":1}' in letter_text
    assert await run("dead-letters", "show", name, "--raw") == '{"n":1}'
    assert "1 replayed" in await run("dead-letters", "replay", name)
    assert "1 were replayed before" in await run("dead-letters", "replay", name)
    listed = await run("dead-letters", "list", "--reason", "no_price")
    assert re.search(r"no_price +yes +because", listed)
    nothing = await asyncio.to_thread(run_command, "dead-letters", "replay", settings=settings)
    assert nothing.returncode == 2
    assert "say which" in nothing.stderr
    unknown = await asyncio.to_thread(
        run_command, "dead-letters", "replay", "0:99", settings=settings
    )
    assert "no such dead letter" in unknown.stderr
