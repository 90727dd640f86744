"""The agents: each takes a batch and submits it, with its step, to the lane that decides it."""

from collections.abc import AsyncIterable, Mapping

import faust

from streams.exactly_once import Batch, Decide, ExactlyOnce


def define_agents(app: faust.App, runtime: ExactlyOnce, steps: Mapping[str, Decide]) -> None:
    """One ordinary Faust agent for each input topic; `steps` are by unprefixed topic."""
    for topic, step in steps.items():
        _define_agent(app, runtime, topic, step)


def _define_agent(app: faust.App, runtime: ExactlyOnce, topic: str, step: Decide) -> None:
    async def decide(batches: AsyncIterable[Batch]) -> None:
        async for batch in batches:
            runtime.submit(batch, step)

    app.agent(runtime.input(topic), name=topic)(decide)
