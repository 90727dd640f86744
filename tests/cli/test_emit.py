"""What `emit` promises: keyed by organization, acknowledged or named, nothing judged."""

import asyncio
import io
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from aiokafka.partitioner import DefaultPartitioner

from cli import emit as emitting
from cli import kafka as kafka_clients
from cli.emit import Outcome, emit, key_of
from cli.errors import Failure
from cli.kafka import connected, reader
from deploy.embedded import EmbeddedKafka
from deploy.embedded.child import clean_environment
from schemas.settings import Settings
from streams.kafka import create_topics
from tests.cli.conftest import RunCommand, environment_of
from tests.conftest import MakeSettings


async def everything(settings: Settings, topic: str) -> list[Any]:
    """All records of a topic."""
    records = []
    async with connected(reader(settings, topic), settings) as consumer:
        partitions = sorted(consumer.assignment())
        ends = await consumer.end_offsets(partitions)
        await consumer.seek_to_beginning(*partitions)
        async with asyncio.timeout(30):
            while any([await consumer.position(each) < ends[each] for each in partitions]):
                for batch in (await consumer.getmany(timeout_ms=200)).values():
                    records += batch
    return records


async def emitted(settings: Settings, text: bytes) -> Outcome:
    outcome = Outcome()
    await emit(settings, io.BytesIO(text), outcome)
    return outcome


@pytest.fixture
async def settings(kafka: EmbeddedKafka, make_settings: MakeSettings) -> Settings:
    own_settings = make_settings()
    await create_topics(own_settings)
    return own_settings


async def test_lines_arrive_unchanged_under_their_organization(settings: Settings) -> None:
    lines = [f'{{"organizationid": "org_{number % 7}", "n":{number}}}' for number in range(500)]
    outcome = await emitted(settings, "\n".join(lines).encode())
    assert (outcome.acknowledged, outcome.failed) == (500, {})
    records = await everything(settings, "usage")
    assert sorted(record.value.decode() for record in records) == sorted(lines)
    numbers = list(range(settings.partitions))
    for record in records:
        assert f'"{record.key.decode()}"' in record.value.decode()
        assert record.partition == DefaultPartitioner()(record.key, numbers, numbers)


async def test_what_cannot_be_keyed_is_named_and_the_rest_is_sent(settings: Settings) -> None:
    text = b'{"organizationid":"org_1"}\n\nnot json\n{"no":"organization"}\n{"organizationid":7}'
    outcome = await emitted(settings, text)
    assert outcome.acknowledged == 1
    assert set(outcome.failed) == {3, 4, 5}
    assert "line 3: not sent: no JSON object" in outcome.complaint()


async def test_a_line_that_the_broker_refuses_is_named(settings: Settings) -> None:
    huge = b'{"organizationid":"org_1","x":"' + os.urandom(1_200_000).hex().encode() + b'"}'
    outcome = await emitted(settings, b'{"organizationid":"org_1"}\n' + huge + b"\n")
    assert outcome.acknowledged == 1
    assert outcome.failed == {
        2: f"not sent: {len(huge):,} bytes, and `usage` takes at most 1,048,588 in a record"
    }


async def test_only_inputs_can_be_sent_to(settings: Settings) -> None:
    with pytest.raises(Failure, match="the worker alone"):
        await emit(settings, io.BytesIO(b""), Outcome(), "usage-rated")


def test_the_key_of_each_topic() -> None:
    assert key_of(b'{"organizationid":"a","organization_id":"b"}', "usage", None) == b"a"
    assert key_of(b'{"organizationid":"a","organization_id":"b"}', "credits", None) == b"b"
    assert key_of(b"{}", "usage", "fallback") == b"fallback"
    assert key_of(b'{"organizationid":"a"}', "usage", "fallback") == b"a"
    with pytest.raises(ValueError, match="no JSON object"):
        key_of(b"[]", "usage", "fallback")
    for line in (b'{"x":' * 2_000 + b"1" + b"}" * 2_000, b'{"organizationid":"\xff"}'):
        with pytest.raises(ValueError, match="no JSON object"):
            key_of(line, "usage", "fallback")


async def test_the_command_says_what_it_sent(
    settings: Settings, run_command: RunCommand, tmp_path: Path
) -> None:
    file = tmp_path / "facts.jsonl"
    file.write_text('{"organization_id":"org_1"}\n{"organization_id":"org_2"}\n')
    arguments = ("emit", str(file), "--topic", "memberships")
    outcome = await asyncio.to_thread(run_command, *arguments, settings=settings)
    assert outcome.returncode == 0
    assert "2 acknowledged in `memberships`" in outcome.stderr
    outcome = await asyncio.to_thread(
        run_command, "emit", "-", settings=settings, stdin='{"organizationid":"o"}\nnonsense\n'
    )
    assert outcome.returncode == 1
    assert "1 acknowledged" in outcome.stderr
    assert "1 not acknowledged:\n  line 2: not sent" in outcome.stderr


async def test_a_pipe_is_not_held_back_until_it_closes(settings: Settings) -> None:
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        *("-m", "cli", "emit", "-"),
        env=clean_environment(environment_of(settings)),
        stdin=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    assert process.stdin is not None
    try:
        process.stdin.write(b'{"organizationid":"org_1","id":"first"}\n')
        async with asyncio.timeout(30):
            # Only the broker knows when it has arrived.
            while not await everything(settings, "usage"):  # noqa: ASYNC110
                await asyncio.sleep(0.1)
        last = b'{"organizationid":"org_1","id":"last, without newline"}'
        _, said = await asyncio.wait_for(process.communicate(last), 30)
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    assert b"2 acknowledged" in said


class Dying(io.RawIOBase):
    """Lines without end; the broker is killed while they are read."""

    def __init__(self, broker: EmbeddedKafka, outcome: Outcome) -> None:
        self.chunks = 0
        self._broker = broker
        self._outcome = outcome

    def read1(self, _size: int) -> bytes:
        self.chunks += 1
        if self.chunks == 3:
            deadline = time.monotonic() + 30
            while self._outcome.acknowledged < 20 and time.monotonic() < deadline:
                time.sleep(0.05)
            self._broker.kill()
        time.sleep(0.01)
        return b'{"organizationid":"org_1"}\n' * 10


async def test_a_broker_that_dies_is_said_with_what_was_acknowledged(
    make_settings: MakeSettings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(emitting, "NO_ANSWER_S", 2.0)
    monkeypatch.setattr(emitting, "IN_FLIGHT_MAX", 200)
    monkeypatch.setattr(kafka_clients, "STOP_S", 0.5)
    broker = EmbeddedKafka(tmp_path / "own")
    broker.start()
    try:
        settings = make_settings(kafka_bootstrap=broker.bootstrap)
        await create_topics(settings)
        outcome = Outcome()
        with pytest.raises(Failure, match="acknowledged nothing for 2 s"):
            await emit(settings, Dying(broker, outcome), outcome)  # type: ignore[arg-type]
    finally:
        broker.stop()
    assert outcome.acknowledged == 20
    assert len(outcome.failed) == 200
    assert set(outcome.failed.values()) == {"no acknowledgement"}
    assert "20 acknowledged in `usage`" in outcome.account("usage")
    assert "… and 180 more\nfurther lines were not read" in outcome.account("usage")
