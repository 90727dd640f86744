"""What `emit` promises: keyed by organisation, acknowledged or named, nothing judged."""

import asyncio
import io
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from aiokafka.partitioner import DefaultPartitioner

from cli.emit import emit, key_of
from cli.errors import Failure
from cli.kafka import connected, reader
from deploy.embedded import EmbeddedKafka
from schemas.settings import Settings
from streams.kafka import create_topics
from tests.cli.conftest import RunCommand, bare_environment, environment_of
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


@pytest.fixture
async def settings(kafka: EmbeddedKafka, make_settings: MakeSettings) -> Settings:
    made = make_settings()
    await create_topics(made)
    return made


async def test_lines_arrive_unchanged_under_their_organisation(settings: Settings) -> None:
    lines = [f'{{"organizationid": "org_{number % 7}", "n":{number}}}' for number in range(500)]
    outcome = await emit(settings, io.BytesIO("\n".join(lines).encode()))
    assert (outcome.acknowledged, outcome.failed) == (500, {})
    records = await everything(settings, "usage")
    assert sorted(record.value.decode() for record in records) == sorted(lines)
    numbers = list(range(settings.partitions))
    for record in records:
        assert f'"{record.key.decode()}"' in record.value.decode()
        assert record.partition == DefaultPartitioner()(record.key, numbers, numbers)


async def test_what_cannot_be_keyed_is_named_and_the_rest_is_sent(settings: Settings) -> None:
    text = b'{"organizationid":"org_1"}\n\nnot json\n{"no":"organisation"}\n{"organizationid":7}'
    outcome = await emit(settings, io.BytesIO(text))
    assert outcome.acknowledged == 1
    assert set(outcome.failed) == {3, 4, 5}
    assert "line 3: not sent: no JSON object" in outcome.complaint()


async def test_a_line_that_the_broker_refuses_is_named(settings: Settings) -> None:
    huge = b'{"organizationid":"org_1","x":"' + os.urandom(1_200_000).hex().encode() + b'"}'
    outcome = await emit(settings, io.BytesIO(b'{"organizationid":"org_1"}\n' + huge + b"\n"))
    assert outcome.acknowledged == 1
    assert set(outcome.failed) == {2}


async def test_only_inputs_can_be_sent_to(settings: Settings) -> None:
    with pytest.raises(Failure, match="the worker alone"):
        await emit(settings, io.BytesIO(b""), "usage-rated")


def test_the_key_of_each_topic() -> None:
    assert key_of(b'{"organizationid":"a","organization_id":"b"}', "usage", None) == b"a"
    assert key_of(b'{"organizationid":"a","organization_id":"b"}', "credits", None) == b"b"
    assert key_of(b"{}", "usage", "fallback") == b"fallback"
    assert key_of(b'{"organizationid":"a"}', "usage", "fallback") == b"a"
    with pytest.raises(ValueError, match="no JSON object"):
        key_of(b"[]", "usage", "fallback")


async def test_the_command_says_what_it_sent(
    settings: Settings, run_command: RunCommand, tmp_path: Path
) -> None:
    file = tmp_path / "facts.jsonl"
    file.write_text('{"organization_id":"org_1"}\n{"organization_id":"org_2"}\n')
    emitting = ("emit", str(file), "--topic", "memberships")
    outcome = await asyncio.to_thread(run_command, *emitting, settings=settings)
    assert outcome.returncode == 0
    assert "2 acknowledged in `memberships`" in outcome.stderr
    outcome = await asyncio.to_thread(
        run_command, "emit", "-", settings=settings, stdin='{"organizationid":"o"}\nnonsense\n'
    )
    assert outcome.returncode == 1
    assert "1 acknowledged" in outcome.stderr
    assert "1 not acknowledged:\n  line 2: not sent" in outcome.stderr


async def test_a_pipe_is_not_held_back_until_it_closes(settings: Settings) -> None:
    emitting = await asyncio.create_subprocess_exec(
        sys.executable,
        *("-m", "cli", "emit", "-"),
        env={**bare_environment(), **environment_of(settings)},
        stdin=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    assert emitting.stdin is not None
    try:
        emitting.stdin.write(b'{"organizationid":"org_1","id":"first"}\n')
        async with asyncio.timeout(30):
            # Only the broker knows when it has arrived.
            while not await everything(settings, "usage"):  # noqa: ASYNC110
                await asyncio.sleep(0.1)
        last = b'{"organizationid":"org_1","id":"last, without newline"}'
        _, said = await asyncio.wait_for(emitting.communicate(last), 30)
    finally:
        if emitting.returncode is None:
            emitting.kill()
            await emitting.wait()
    assert b"2 acknowledged" in said
