"""The records that the exactly-once runtime keeps in `metering-state`, one of each a partition."""

from msgspec import Struct, field


class Progress(Struct):
    """The position of each input topic in one partition, up to which everything is committed."""

    positions: dict[str, int] = field(default_factory=dict)


class TopicIds(Struct):
    """Which topics a partition's state goes with: Kafka gives a topic that is deleted and created
    again another id."""

    cluster: str
    ids: dict[str, str]
    """By the topic's name on the broker: inputs and changelogs."""
