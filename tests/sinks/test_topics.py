"""`topics create`: creates what is missing, alters nothing, and says what is wrong."""

import pytest
from aiokafka.admin import AIOKafkaAdminClient, NewTopic

from deploy.embedded import EmbeddedKafka
from schemas import topics
from schemas.settings import Settings
from streams.kafka import TopicsError, cluster_id, create_topics, find_problems, wanted_config
from tests.conftest import MakeSettings


async def test_created_once_and_checked_afterwards(
    kafka: EmbeddedKafka, make_settings: MakeSettings
) -> None:
    settings = make_settings(dedupe_window_days=60)
    first = await create_topics(settings)
    second = await create_topics(settings)

    assert len(first.created) == len(topics.all_topics())
    assert (second.created, len(second.existing)) == ((), len(first.created))
    with pytest.raises(TopicsError, match=r"usage has 4 partitions, METERING_PARTITIONS is 5"):
        await create_topics(settings.model_copy(update={"partitions": 5}))
    longer = settings.model_copy(update={"dedupe_window_days": 61})
    with pytest.raises(TopicsError, match=r"metering-seen has retention.ms=5270400000, it must be"):
        await create_topics(longer)
    assert await cluster_id(settings) == kafka.cluster_id


async def test_missing_ones_are_made_though_another_is_wrong(
    kafka: EmbeddedKafka, make_settings: MakeSettings
) -> None:
    settings = make_settings()
    admin = AIOKafkaAdminClient(bootstrap_servers=kafka.bootstrap)
    await admin.start()
    await admin.create_topics([NewTopic(settings.topic("ledger"), 4, 1)])
    await admin.close()

    with pytest.raises(TopicsError) as refusal:
        await create_topics(settings)
    assert "it must be LogAppendTime" in str(refusal.value)
    assert "kafka-configs.sh --alter --topic" in str(refusal.value)
    with pytest.raises(TopicsError):
        await create_topics(settings)


@pytest.mark.parametrize(
    ("name", "key", "value", "is_wrong"),
    [
        ("ledger", "retention.ms", "-1", False),
        ("ledger", "retention.ms", "1000", True),
        ("memberships", "retention.ms", "99999999999999", True),
        ("usage", "retention.ms", "-1", True),
        ("usage", "retention.ms", "1000", True),
        ("usage", "max.message.bytes", "99999999", False),
        ("usage", "max.message.bytes", "1000", True),
        ("balances", "cleanup.policy", "delete", True),
        ("ledger", "retention.bytes", "1000", True),
        ("ledger", "min.insync.replicas", "1", False),
    ],
)
def test_what_differs_harmlessly_is_left_alone(
    make_settings: MakeSettings, name: str, key: str, value: str, is_wrong: bool
) -> None:
    settings: Settings = make_settings(kafka_replication=3)
    config = {**wanted_config(settings, topics.all_topics()[name]), key: value}
    problems = find_problems(settings, {}, {settings.topic(name): config})

    assert bool(problems) is is_wrong, problems
