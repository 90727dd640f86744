"""The Faust app: settings in, agents wired to the exactly-once runtime."""

import faust

from schemas import codec, topics
from schemas.settings import DAY_S, Settings
from streams.agents import define_agents
from streams.exactly_once import ExactlyOnce, RuntimeConfig, faust_settings
from streams.exactly_once.state import Codec
from streams.kafka import client_options
from streams.metrics import WorkerHealth
from streams.steps import FactStep, ForfeitStep, UsageStep

DELETE_RETENTION_S = DAY_S
"""`delete.retention.ms` of the compacted changelogs (the broker's default)."""


def changelog_of(kind: str) -> str:
    """Pools have a changelog of their own, which the API reads."""
    return topics.BALANCES if kind == "pool" else topics.STATE


def build_app(settings: Settings, health: WorkerHealth) -> tuple[faust.App, ExactlyOnce]:
    """The app and its runtime, not started. Raises nothing but on a programming error."""
    directory = settings.data_dir / f"worker-{settings.instance_id}"
    directory.mkdir(parents=True, exist_ok=True)
    app = faust.App(
        settings.app_id,
        broker=[f"kafka://{address}" for address in settings.kafka_bootstrap.split(",")],
        datadir=str(directory / "faust"),
        consumer_group_instance_id=settings.instance_id,
        **faust_settings(settings.session_timeout_s),
    )
    runtime = ExactlyOnce(
        app,
        RuntimeConfig(
            app_id=settings.app_id,
            client_options=client_options(settings),
            directory=directory,
            input_order=(*topics.FACTS, topics.USAGE),
            state_topic=topics.STATE,
            seen_topic=topics.SEEN,
            changelogs=topics.CHANGELOGS,
            codec=Codec(codec.encode_state_key, codec.encode, codec.decode_state, changelog_of),
            batch_bytes_max={
                topic.name: topic.max_message_bytes for topic in topics.all_topics().values()
            },
            topic_prefix=settings.topic_prefix,
            compression=None if settings.compression == "none" else settings.compression,
            batch_max_records=settings.batch_max_events,
            transaction_timeout_s=settings.transaction_timeout_s,
            seen_window_ms=settings.dedupe_window_days * DAY_S * 1000,
            store_max_age_s=DELETE_RETENTION_S / 2,
            on_tick=ForfeitStep(settings),
            tick_interval_s=settings.forfeit_interval_s,
        ),
        on_commit=health.committed,
        on_recovered=health.recovered,
        on_lanes=health.lanes_changed,
    )
    define_agents(
        app,
        runtime,
        {
            topics.USAGE: UsageStep(settings),
            **{topic: FactStep(topic, settings) for topic in topics.FACTS},
        },
    )
    return app, runtime
