"""A Faust app of its own on the runtime: no metering in it. The tests' subject, run as a process.

`factors` (facts) say what a key's numbers are multiplied with; `numbers` are added up by key, each
id once; `totals` gets the running total after each number.
"""

import asyncio
import os
import sys
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import faust
import msgspec
import uvloop
import xxhash

from streams.exactly_once import (
    Batch,
    ExactlyOnce,
    RuntimeConfig,
    Transaction,
    faust_settings,
    lanes,
)
from streams.exactly_once.state import Codec
from streams.worker_process import run_faust

ENV = os.environ
PREFIX = ENV.get("COUNTING_PREFIX", "")


class Number(msgspec.Struct):
    id: str
    key: str
    n: int


class Factor(msgspec.Struct):
    key: str
    factor: int


CODEC = Codec(
    encode_key=msgspec.json.encode,
    encode_value=msgspec.json.encode,
    decode_value=lambda _, raw: msgspec.json.decode(raw),
    changelog_of=lambda kind: "counting-totals" if kind == "total" else "counting-state",
)


def add(records: Sequence[Any], transaction: Transaction) -> None:
    numbers = [msgspec.json.decode(record.value, type=Number) for record in records]
    identities = [xxhash.xxh3_128_digest(number.id.encode()) for number in numbers]
    before = transaction.seen_before(identities)
    for number, identity, seen in zip(numbers, identities, before, strict=True):
        if seen or identity in transaction.seen:
            continue
        transaction.seen[identity] = 1
        total = transaction.state.get(("total", number.key)) or 0
        total += number.n * (transaction.state.get(("factor", number.key)) or 0)
        transaction.state.put(("total", number.key), total)
        row = {"id": number.id, "key": number.key, "total": total}
        transaction.emit("totals", number.key.encode(), msgspec.json.encode(row))


def set_factor(records: Sequence[Any], transaction: Transaction) -> None:
    for record in records:
        factor = msgspec.json.decode(record.value, type=Factor)
        transaction.state.put(("factor", factor.key), factor.factor)


def strike(transaction: Transaction, struck_at: datetime) -> bool:
    """The clock: says so among the totals, where it struck before what is decided now."""
    said = b'{"id":"clock"}' if struck_at < transaction.now else b'{"id":"clock of now"}'
    transaction.emit("totals", b"clock", said)
    return False


def jumping_clock() -> datetime:
    """The machine's clock, wrong by as many days as the file says while it is there."""
    jump = Path(ENV["COUNTING_DIRECTORY"]).with_suffix(".clock")
    days = int(jump.read_text()) if jump.exists() else 0
    return datetime.now(UTC) + timedelta(days=days)


def slow_recovery(seconds: float) -> None:
    """Recovery takes this long: for rebalances in its middle."""
    quick = lanes.recover

    async def slowly(*arguments: Any, **options: Any) -> int:
        records = await quick(*arguments, **options)
        await asyncio.sleep(seconds)
        return records

    lanes.recover = slowly


def build() -> faust.App:
    slow_recovery(float(ENV.get("COUNTING_SLOW_RECOVERY_S", "0")))
    app = faust.App(
        f"{PREFIX}counting",
        broker=f"kafka://{ENV['COUNTING_BOOTSTRAP']}",
        datadir=ENV["COUNTING_DIRECTORY"],
        broker_request_timeout=float(ENV.get("COUNTING_REQUEST_TIMEOUT_S", "30")),
        consumer_group_instance_id=ENV["COUNTING_INSTANCE"],
        **faust_settings(float(ENV.get("COUNTING_SESSION_S", "6"))),
    )
    runtime = ExactlyOnce(
        app,
        RuntimeConfig(
            app_id=f"{PREFIX}counting",
            client_options={"bootstrap_servers": ENV["COUNTING_BOOTSTRAP"]},
            directory=Path(ENV["COUNTING_DIRECTORY"]),
            input_order=("factors", "numbers"),
            state_topic="counting-state",
            seen_topic="counting-seen",
            changelogs=("counting-state", "counting-totals", "counting-seen"),
            codec=CODEC,
            topic_prefix=PREFIX,
            batch_max_records=int(ENV.get("COUNTING_BATCH", "500")),
            on_tick=strike if "COUNTING_TICK_S" in ENV else None,
            clock=jumping_clock,
            tick_interval_s=float(ENV.get("COUNTING_TICK_S", "1")),
        ),
        on_recovered=lambda partition, records, seconds: print(
            f"recovered {partition} {records} {seconds:.3f}", file=sys.stderr, flush=True
        ),
    )

    @app.agent(runtime.input("factors"))
    async def factors(batches: Any) -> None:
        batch: Batch
        async for batch in batches:
            runtime.submit(batch, set_factor)

    @app.agent(runtime.input("numbers"))
    async def numbers(batches: Any) -> None:
        batch: Batch
        async for batch in batches:
            runtime.submit(batch, add)

    return app


if __name__ == "__main__":
    uvloop.install()
    run_faust(build())
