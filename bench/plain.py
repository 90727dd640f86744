"""Runs plain Faust on topics of its own, and measures it like the others."""

import asyncio
import sys

from bench import loading
from bench.checking import differences, read_result
from bench.engines import ROOT, STOP_TIMEOUT_S, environment
from bench.sampling import Measured, watch
from bench.stage import STUCK_AFTER_S, Stage
from deploy.embedded.child import ChildProcess
from schemas import topics
from schemas.settings import Settings

TOPICS = (*topics.INPUTS, topics.USAGE_RATED)


async def run_plain_faust(stage: Stage, turn: int) -> tuple[Measured, list[str]]:
    """Its measurement, and what is wrong with its result. Each turn has topics of its own.

    Nothing is repeated in its workload: it has no dedupe.
    """
    app_id = f"plain-faust-{turn}"
    values = {**stage.values, "topic_prefix": f"{app_id}.", "app_id": app_id}
    settings = Settings(**values)
    workload = stage.new_workload(stage.sizes.plain_events, repeating=False)
    await loading.create_plain_topics(settings, map(settings.topic, TOPICS), "delete")
    await loading.publish_facts(settings, workload)
    async with loading.producer(settings) as producer:
        usage = settings.topic(topics.USAGE)
        total = await loading.fill(producer, usage, workload.events(stage.sizes.plain_events))
    output = settings.topic(topics.USAGE_RATED)
    faust = ChildProcess("plain Faust", stage.directory / f"{app_id}.log", die_with_parent=True)
    command = [
        sys.executable, "-m", "bench.plain_faust", "worker", "--without-web", "-l", "error",
    ]  # fmt: skip
    await asyncio.to_thread(faust.start, command, {**environment(values), "PYTHONPATH": str(ROOT)})
    try:
        assert faust.pid is not None

        async def written() -> int:
            # Without transactions there are no markers: the offsets count rows.
            return sum(await loading.ends(settings, output))

        measured = await watch(stage.pids(faust.pid), written, total, stuck_after_s=STUCK_AFTER_S)
    finally:
        await asyncio.to_thread(faust.stop, STOP_TIMEOUT_S)
    return measured, differences(workload.expected, await read_result(settings, output))
