"""What every Kafka client of ours is given, and the topics it finds: `metering topics create`.

Lives here: client options from Settings, creation and inspection of the contract's topics. Nothing
that reads or writes records.
"""

import asyncio
import ssl
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from typing import Any, Final

from aiokafka.admin import AIOKafkaAdminClient, NewTopic
from aiokafka.admin.config_resource import ConfigResource, ConfigResourceType
from aiokafka.conn import create_conn
from aiokafka.errors import (
    AuthenticationFailedError,
    KafkaError,
    SaslAuthenticationFailed,
    TopicAlreadyExistsError,
    UnsupportedSaslMechanismError,
    for_code,
)
from aiokafka.partitioner import murmur2

from schemas import topics
from schemas.settings import Settings
from streams.wire import record_batch

READS_ANY_RECORD: Final = record_batch.__name__
"""Importing it lets every consumer of the process read whatever producers have sent."""

ADMIN_TIMEOUT_MS: Final = 30_000
SAYS_ONLY_THAT: Final = ("Unable to bootstrap from", "Unable to get cluster metadata")
"""The client's words for brokers that do not answer, with its own types of addresses in them."""

APPEAR_TIMEOUT_S: Final = 15.0
"""How long a created topic may take to show up in the metadata."""


class TopicsError(Exception):
    """The topics are not as the contract needs them; the text lists every difference."""


class LoginError(Exception):
    """Kafka answers and refuses us: waiting will not help."""


REFUSALS: Final = (
    AuthenticationFailedError,
    SaslAuthenticationFailed,
    UnsupportedSaslMechanismError,
    ssl.SSLError,
)
LOGIN_TIMEOUT_MS: Final = 5_000


@dataclass(frozen=True, slots=True)
class TopicsReport:
    """Names on the broker."""

    created: tuple[str, ...]
    existing: tuple[str, ...]


def client_options(settings: Settings) -> dict[str, Any]:
    """Arguments for any aiokafka client: where the brokers are and how to authenticate.

    Raises OSError or ssl.SSLError when the CA file cannot be used.
    """
    protocol = settings.kafka_security_protocol
    options: dict[str, Any] = {
        "bootstrap_servers": settings.kafka_bootstrap,
        "client_id": f"{settings.app_id}-{settings.instance_id}",
        "security_protocol": protocol,
    }
    if protocol.endswith("SSL"):
        context = ssl.create_default_context(cafile=settings.kafka_security_ca_file)
        context.sslobject_class = _ClosesAtOnce
        options["ssl_context"] = context
    if protocol.startswith("SASL"):
        options |= {
            "sasl_mechanism": settings.kafka_security_sasl_mechanism,
            "sasl_plain_username": settings.kafka_security_username,
            "sasl_plain_password": settings.kafka_security_password.get_secret_value(),
        }
    return options


class _ClosesAtOnce(ssl.SSLObject):
    """Says that it closes, and does not wait for the broker to say so too.

    RFC 8446 (6.1) does not ask for it. A broker that holds back a fetch never answers, and the
    event loop would wait for 30 s: at each recovery, and whenever a process ends.
    """

    def unwrap(self) -> None:
        with suppress(ssl.SSLWantReadError):
            super().unwrap()


def home_partition(organization_id: bytes, partitions: int) -> int:
    """Where everything about the organization is, by the rule of Java's and aiokafka's clients."""
    return int(murmur2(organization_id) & 0x7FFFFFFF) % partitions


def no_answer(settings: Settings, error: BaseException) -> str:
    """That the brokers do not answer, with what the client said where that says more."""
    said = " ".join(str(error).split())
    adds_nothing = not said or any(words in said for words in SAYS_ONLY_THAT)
    return f"{settings.kafka_bootstrap} does not answer" + ("" if adds_nothing else f" ({said})")


async def login_problem(settings: Settings) -> str:
    """Why the brokers refuse a connection, for a person; empty where none says so.

    aiokafka itself only says that it could not bootstrap.
    """
    options = client_options(settings)
    for address in options.pop("bootstrap_servers").split(","):
        host, _, port = address.strip().rpartition(":")
        try:
            connection = await create_conn(
                host, int(port), request_timeout_ms=LOGIN_TIMEOUT_MS, **options
            )
        except REFUSALS as error:
            how: str = settings.kafka_security_protocol
            if how.startswith("SASL"):
                how = f"{how}, {settings.kafka_security_sasl_mechanism}"
            return f"Kafka at {address} and METERING_KAFKA_SECURITY_… ({how}) disagree: {error}"
        except (KafkaError, OSError, TimeoutError):
            continue
        connection.close()
        break
    return ""


@asynccontextmanager
async def _admin(settings: Settings) -> AsyncIterator[AIOKafkaAdminClient]:
    """Raises KafkaError when no broker answers, LoginError when one refuses us."""
    admin = AIOKafkaAdminClient(**client_options(settings), request_timeout_ms=ADMIN_TIMEOUT_MS)
    try:
        await admin.start()
    except KafkaError:
        if problem := await login_problem(settings):
            raise LoginError(problem) from None
        raise
    try:
        yield admin
    finally:
        await admin.close()


async def create_topics(settings: Settings) -> TopicsReport:
    """Create the topics that are missing and check those that exist. Safe to repeat.

    Existing topics are never altered: a wrong one raises `TopicsError`, after the missing ones
    were created. Raises KafkaError when the brokers cannot be asked, LoginError when they refuse.
    """
    async with _admin(settings) as admin:
        partitions = await _partition_counts(admin)
        created = await _create_missing(admin, settings, partitions)
        existing = [
            settings.topic(name)
            for name in topics.all_topics()
            if settings.topic(name) not in created
        ]
        await _raise_problems(admin, settings, existing)
        return TopicsReport(tuple(created), tuple(existing))


async def check_topics(settings: Settings) -> None:
    """Raises TopicsError unless all topics are there and as the contract needs them, KafkaError
    when the brokers cannot be asked, LoginError when they refuse."""
    async with _admin(settings) as admin:
        names = [settings.topic(name) for name in topics.all_topics()]
        counts = await _partition_counts(admin)
        missing = [name for name in names if name not in counts]
        if missing:
            raise TopicsError(f"{', '.join(missing)} do not exist: run `metering topics create`")
        await _raise_problems(admin, settings, names)


async def _raise_problems(admin: AIOKafkaAdminClient, settings: Settings, names: list[str]) -> None:
    if not names:
        return
    partitions = await _partition_counts(admin)
    problems = find_problems(settings, partitions, await _configs(admin, names))
    if problems:
        raise TopicsError("\n".join(problems))


async def cluster_id(settings: Settings) -> str:
    """The id that tells this Kafka cluster from any other. Raises KafkaError, LoginError."""
    async with _admin(settings) as admin:
        description = await admin.describe_cluster()
        return str(description.get("cluster_id") or "unknown")


def wanted_config(settings: Settings, topic: topics.Topic) -> dict[str, str]:
    """The broker's settings for a new topic of the contract."""
    config = topic.broker_config()
    if topic.name == topics.SEEN:
        # One day more than the window: an id must be there for as long as its event may return.
        days = max(topic.retention_days, settings.dedupe_window_days + 1)
        config["retention.ms"] = str(days * topics.DAY_MS)
    # A broker-wide limit by size would drop what the contract keeps by time.
    config["retention.bytes"] = "-1"
    if settings.kafka_replication >= 3:
        config["min.insync.replicas"] = "2"
    return config


def find_problems(
    settings: Settings,
    partitions: Mapping[str, int],
    configs: Mapping[str, Mapping[str, str]],
) -> list[str]:
    """What is wrong with existing topics, a sentence each; both maps are by name on the broker.

    Other than the contract says is fine where nothing is lost by it: longer retention, larger
    messages. Not for `usage`: the dedupe window was reckoned from its retention.
    """
    problems = []
    for topic in topics.all_topics().values():
        name = settings.topic(topic.name)
        if partitions.get(name, settings.partitions) != settings.partitions:
            problems.append(
                f"{name} has {partitions[name]} partitions, METERING_PARTITIONS is "
                f"{settings.partitions}: the count is the same for all topics and never changes"
            )
        config = configs.get(name)
        if config is None:
            continue
        for key, contract in wanted_config(settings, topic).items():
            sentence = _difference(topic, key, contract, config.get(key, ""))
            if sentence:
                problems.append(
                    f"{name} has {key}={config.get(key)}, {sentence} (mend it with "
                    f"kafka-configs.sh --alter --topic {name} --add-config {key}={contract})"
                )
    return problems


def _difference(topic: topics.Topic, key: str, contract: str, actual: str) -> str:
    """Why a found setting is wrong, empty where it is good enough."""
    if actual == contract:
        return ""
    match key:
        case "cleanup.policy" | "message.timestamp.type":
            return f"it must be {contract}"
        case "max.message.bytes":
            return "" if int(actual or 0) >= int(contract) else f"it must be at least {contract}"
        case "retention.ms":
            if topic.name == topics.USAGE and _is_longer(actual, contract):
                return f"it may be at most {contract}, or the dedupe window would be too short"
            return "" if _is_longer(actual, contract) else f"it must be at least {contract}"
        case "retention.bytes" if topic.cleanup == "delete":
            return "it must be -1, or records are dropped before their time"
        case _:
            return ""


def _is_longer(actual: str, contract: str) -> bool:
    """Of two retentions, where -1 is for ever."""
    if int(contract) < 0:
        return False
    return int(actual or 0) < 0 or int(actual or 0) > int(contract)


async def _partition_counts(admin: AIOKafkaAdminClient) -> dict[str, int]:
    described = await admin.describe_topics()
    return {
        topic["topic"]: len(topic["partitions"]) for topic in described if not topic["error_code"]
    }


async def _create_missing(
    admin: AIOKafkaAdminClient, settings: Settings, existing: Mapping[str, int]
) -> list[str]:
    missing = [
        NewTopic(
            settings.topic(topic.name),
            settings.partitions,
            settings.kafka_replication,
            topic_configs=wanted_config(settings, topic),
        )
        for topic in topics.all_topics().values()
        if settings.topic(topic.name) not in existing
    ]
    if not missing:
        return []
    response = await admin.create_topics(missing)
    created, refused = [], []
    for name, code, *rest in response.topic_errors:
        error = for_code(code)
        if not code:
            created.append(name)
        elif error is not TopicAlreadyExistsError:  # somebody else was quicker: checked below
            refused.append(f"{name} could not be created: {error.__name__} {rest[0] or ''}".strip())
    if refused:
        raise TopicsError("\n".join(refused))
    await _await_topics(admin, [topic.name for topic in missing])
    return created


async def _await_topics(admin: AIOKafkaAdminClient, names: list[str]) -> None:
    """Return once every broker-side creation shows: clients started now must find leaders."""
    try:
        async with asyncio.timeout(APPEAR_TIMEOUT_S):
            # The broker has no event to wait for.
            while not set(names) <= set(await _partition_counts(admin)):  # noqa: ASYNC110
                await asyncio.sleep(0.05)
    except TimeoutError:
        raise TopicsError(f"the topics did not appear within {APPEAR_TIMEOUT_S:.0f} s") from None


async def _configs(admin: AIOKafkaAdminClient, names: list[str]) -> dict[str, dict[str, str]]:
    responses = await admin.describe_configs(
        [ConfigResource(ConfigResourceType.TOPIC, name) for name in names]
    )
    configs: dict[str, dict[str, str]] = {}
    for response in responses:
        for code, message, _kind, name, entries in response.resources:
            if code:
                raise KafkaError(f"the settings of {name} cannot be read: {message}")
            configs[name] = {entry[0]: entry[1] for entry in entries}
    return configs
