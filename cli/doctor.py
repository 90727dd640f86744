"""`metering doctor`: looks at everything a pipeline needs, and says what to mend.

Changes nothing. Each check stands alone: one that fails does not hide the others.
"""

import asyncio
import json
import os
import platform
import shutil
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from http import HTTPStatus
from http.client import HTTPConnection, HTTPException
from importlib import metadata
from pathlib import Path
from typing import Any, Final, Literal

from aiokafka.errors import KafkaError
from sqlalchemy import make_url, select
from sqlalchemy.exc import SQLAlchemyError

from api.errors import Refused
from api.storage.ledgers import UNKNOWN_ORGANIZATION, PublishingHalt
from api.storage.revision import is_current
from api.storage.store import Store, database_url
from cli.api import load_options, load_payment_options, partners_of
from cli.configuration import settings_file, unknown_variables
from cli.errors import Failure, one_line
from cli.masking import without_secrets
from deploy.embedded.child import EngineError
from deploy.embedded.java import find_java
from schemas.release import code_digest
from schemas.settings import DEFAULT_ALIAS_SECRET, Settings
from schemas.topics import all_topics
from streams.kafka import LoginError, TopicsError, check_topics, cluster_id, no_answer
from warehouse.connection import WarehouseAway, WarehouseError, connect
from warehouse.migrations import packaged_migrations, pending

CONNECT_S: Final = 15.0
CLOCK_S_MAX: Final = 5.0
DISK_WRONG_BYTES: Final = 1 << 30
DISK_LOW_BYTES: Final = 5 << 30
PROBE_S: Final = 2.0
OTHERS_MAY_READ: Final = 0o044
HALTS_SHOWN_MAX: Final = 20
SAID_CHARACTERS_MAX: Final = 500
LOCAL: Final = "127.0.0.1"
EVERY_ADDRESS: Final = ("0.0.0.0", "::")  # noqa: S104 - nothing listens here, it is asked
PACKAGES: Final = ("faust-streaming", "aiokafka", "clickhouse-connect", "rocksdict")

Level = Literal["ok", "note", "wrong"]


@dataclass(frozen=True, slots=True)
class Finding:
    """One line; `note` is worth knowing, `wrong` is to be mended."""

    level: Level
    subject: str
    text: str

    @property
    def is_wrong(self) -> bool:
        return self.level == "wrong"


@dataclass(frozen=True, slots=True)
class _Answer:
    status: int
    text: str


async def examine(settings: Settings) -> list[Finding]:
    """All findings, in a fixed order. Raises nothing of what it examines."""
    findings = [*_settings(settings), *_partners(settings), _versions(), _jvm(), _disk(settings)]
    for check in (_kafka, _topics):
        findings += await _bounded(check, settings)
    findings += await asyncio.to_thread(_clickhouse, settings)
    findings += await asyncio.to_thread(_finance, settings)
    findings += await asyncio.to_thread(_database, settings)
    findings.append(await _stripe())
    findings += [
        await asyncio.to_thread(_process, name, settings.metrics_host, port)
        for name, port in (
            ("worker", settings.metrics_port),
            ("sink", settings.sink_metrics_port),
        )
    ]
    return [*findings, await asyncio.to_thread(_api)]


def render(findings: list[Finding]) -> str:
    marks = {"ok": "ok  ", "note": "note", "wrong": "MEND"}
    lines = [f"{marks[each.level]}  {each.subject:<11} {each.text}" for each in findings]
    wrong = sum(finding.is_wrong for finding in findings)
    lines.append("all is well" if not wrong else f"{wrong} to mend")
    return "\n".join(lines)


def _settings(settings: Settings) -> list[Finding]:
    file = settings_file()
    findings = [Finding("ok", "settings", f"valid{f', with {file}' if file else ''}")]
    findings += [Finding("note", "settings", complaint) for complaint in unknown_variables()]
    if settings.alias_secret.get_secret_value() == DEFAULT_ALIAS_SECRET:
        text = "METERING_ALIAS_SECRET is not set: hashes of addresses in the facts can be guessed"
        findings.append(Finding("note", "settings", text))
    return findings


def _partners(settings: Settings) -> list[Finding]:
    """Whether the file can be used; nobody is asked, since that would be noted there."""
    if settings.partners_file is None:
        return []
    try:
        partners = partners_of(settings).by_name
    except Failure as failure:
        return [Finding("wrong", "partners", str(failure))]
    names = ", ".join(sorted(partners)) or "none"
    findings = [Finding("ok", "partners", f"{names}, by {settings.partners_file}")]
    if settings.partners_file.stat().st_mode & OTHERS_MAY_READ:
        text = f"{settings.partners_file} holds secrets and everybody may read it: chmod 600"
        findings.append(Finding("note", "partners", text))
    return findings


def _versions() -> Finding:
    versions = ", ".join(f"{name} {metadata.version(name)}" for name in PACKAGES)
    return Finding("ok", "versions", f"Python {platform.python_version()}, {versions}")


def _jvm() -> Finding:
    try:
        return Finding("ok", "JVM", find_java())
    except EngineError as error:
        # A broker on another machine has a disk of its own.
        return Finding("note", "JVM", f"none for `metering up`: {error}")


def _disk(settings: Settings) -> Finding:
    directory = settings.data_dir.resolve()
    existing = next(path for path in (directory, *directory.parents) if path.exists())
    free = shutil.disk_usage(existing).free
    text = f"{free / 2**30:.1f} GiB free in {existing}"
    if not os.access(existing, os.W_OK | os.X_OK):
        return Finding("wrong", "disk", f"{existing} is not writable: choose METERING_DATA_DIR")
    if free < DISK_WRONG_BYTES:
        return Finding("wrong", "disk", f"{text}: make room, or choose METERING_DATA_DIR")
    return Finding("note" if free < DISK_LOW_BYTES else "ok", "disk", text)


async def _bounded(
    check: Callable[[Settings], Awaitable[list[Finding]]], settings: Settings
) -> list[Finding]:
    try:
        async with asyncio.timeout(CONNECT_S):
            return await check(settings)
    except LoginError as error:
        return [Finding("wrong", "Kafka", str(error))] if check is _kafka else []
    except (KafkaError, OSError, TimeoutError) as error:
        text = no_answer(settings, error)
        # Without a broker the topics cannot be seen, and one finding about it is enough.
        return [Finding("wrong", "Kafka", text)] if check is _kafka else []


async def _kafka(settings: Settings) -> list[Finding]:
    cluster = await cluster_id(settings)
    return [Finding("ok", "Kafka", f"cluster {cluster} at {settings.kafka_bootstrap}")]


async def _topics(settings: Settings) -> list[Finding]:
    try:
        await check_topics(settings)
    except TopicsError as error:
        return [Finding("wrong", "topics", line) for line in str(error).splitlines()]
    text = f"{len(all_topics())} as they should be, {settings.partitions} partitions each"
    return [Finding("ok", "topics", text)]


def _clickhouse(settings: Settings) -> list[Finding]:
    try:
        client = connect(settings, database="default")
    except WarehouseError as error:
        return [
            Finding("wrong", "ClickHouse", f"{error} ({without_secrets(settings.clickhouse_url)})")
        ]
    try:
        text = f"{client.server_version} at {without_secrets(settings.clickhouse_url)}"
        return [
            Finding("ok", "ClickHouse", text),
            _clock(client),
            _migrations(client, settings),
        ]
    except Exception as error:  # noqa: BLE001 - whatever it is, it is a finding
        return [Finding("wrong", "ClickHouse", one_line(error))]
    finally:
        client.close()


def _clock(client: Any) -> Finding:
    theirs = client.query("SELECT now64(3, 'UTC')").result_rows[0][0].replace(tzinfo=UTC)
    apart_s = abs((datetime.now(UTC) - theirs).total_seconds())
    text = f"{apart_s:.1f} s apart from ClickHouse's"
    return Finding("wrong" if apart_s > CLOCK_S_MAX else "ok", "clock", text)


def _migrations(client: Any, settings: Settings) -> Finding:
    mend = "run `metering migrate`"
    is_there = client.query(
        "SELECT count() FROM system.tables WHERE database = {name:String} AND name = 'migrations'",
        parameters={"name": settings.clickhouse_database},
    ).result_rows[0][0]
    if not is_there:
        text = f"database {settings.clickhouse_database} is not set up: {mend}"
        return Finding("wrong", "tables", text)
    rows = client.query(
        f"SELECT number, name, checksum FROM {settings.clickhouse_database}.migrations FINAL"  # noqa: S608 - the name's pattern is checked by Settings
    ).result_rows
    applied = {number: (name, checksum) for number, name, checksum in rows}
    try:
        waiting = pending(packaged_migrations(), applied)
    except WarehouseError as error:
        return Finding("wrong", "tables", str(error))
    if waiting:
        names = ", ".join(migration.name for migration in waiting)
        return Finding("wrong", "tables", f"{names} not applied yet: {mend}")
    return Finding("ok", "tables", f"{len(applied)} migrations applied")


def _finance(settings: Settings) -> list[Finding]:
    if not settings.clickhouse_finance_password.get_secret_value():
        text = "METERING_CLICKHOUSE_FINANCE_PASSWORD is not set: no read-only user is checked"
        return [Finding("note", "finance", text)]
    reader = settings.model_copy(
        update={
            "clickhouse_user": settings.clickhouse_finance_user,
            "clickhouse_password": settings.clickhouse_finance_password,
        }
    )
    name = settings.clickhouse_finance_user
    try:
        client = connect(reader)
    except WarehouseAway:
        # Once is enough.
        return []
    except WarehouseError as error:
        return [Finding("wrong", "finance", f"user {name}: {error}")]
    try:
        client.query("SELECT 1 FROM spend LIMIT 1")
    except Exception as error:  # noqa: BLE001 - whatever it is, it is a finding
        return [Finding("wrong", "finance", f"user {name} cannot read `spend`: {one_line(error)}")]
    finally:
        client.close()
    return [Finding("ok", "finance", f"user {name} reads the view `spend`")]


def _database(settings: Settings) -> list[Finding]:
    """The control plane's tables, and whether it may publish and change anything."""
    try:
        url = make_url(database_url(settings))
    except SQLAlchemyError as error:
        return [Finding("wrong", "database", f"METERING_DATABASE_URL: {one_line(error)}")]
    where = without_secrets(url.render_as_string(hide_password=False))
    mend = "run `metering migrate`"
    # Opening a SQLite file that does not exist would create it.
    if url.get_backend_name() == "sqlite" and not Path(url.database or "").exists():
        return [Finding("wrong", "database", f"{where} is not there: {mend}")]
    store = Store(url.render_as_string(hide_password=False))
    try:
        if not is_current(store):
            return [Finding("wrong", "database", f"{where} is not of this release: {mend}")]
        return [Finding("ok", "database", f"migrated, at {where}"), *_halts(store)]
    except (SQLAlchemyError, Refused) as error:
        return [Finding("wrong", "database", f"{where} does not answer: {_said(error)}")]
    finally:
        store.close()


async def _stripe() -> Finding:
    """Whether the key works and is of which mode; without one that is worth knowing."""
    from api.payments.stripe.client import StripeRequests

    try:
        options = load_payment_options()
    except Failure as failure:
        return Finding("wrong", "Stripe", str(failure))
    if not options.is_on:
        return Finding(
            "note", "Stripe", "METERING_STRIPE_API_KEY is not set: nothing is sold by it"
        )
    requests = StripeRequests(options)
    mode = "live mode" if options.is_live else "test mode"
    try:
        async with asyncio.timeout(CONNECT_S):
            account = await requests.account()
    except (Refused, TimeoutError) as error:
        why = f"{error.message} {error.what_to_do}" if isinstance(error, Refused) else "no answer"
        return Finding("wrong", "Stripe", f"{mode}: {why}".strip())
    finally:
        await requests.close()
    where = f" at {options.api_base}" if options.api_base else ""
    return Finding("ok", "Stripe", f"account {account.id}, {mode}{where}")


def _said(error: Exception) -> str:
    """What the driver said, without the statement and the links that are put around it."""
    inner = error.__cause__ or error
    return one_line(getattr(inner, "orig", None) or inner)


def _halts(store: Store) -> list[Finding]:
    with store.read() as session:
        query = select(PublishingHalt).order_by(
            PublishingHalt.since, PublishingHalt.organization_id
        )
        halts = session.scalars(query.limit(HALTS_SHOWN_MAX)).all()
    return [
        Finding(
            "note" if halt.code == UNKNOWN_ORGANIZATION else "wrong", "publishing", halt.message
        )
        for halt in halts
    ]


def _api() -> Finding:
    """Like a worker it may run elsewhere; here it must be ready, and have this release's routes."""
    try:
        options = load_options()
    except Failure as failure:
        return Finding("wrong", "API", str(failure))
    host = LOCAL if options.host in EVERY_ADDRESS else options.host
    finding = _process("API", host, options.port)
    if finding.level != "ok":
        return finding
    served = _get(host, options.port, "/health/live")
    if served is None or not _is_ours(served.text):
        text = f"not of this release at {host}:{options.port}: restart it"
        return Finding("wrong", "API", text)
    return Finding("ok", "API", f"{finding.text}, of this release")


def _is_ours(answer: str) -> bool:
    try:
        return bool(json.loads(answer)["release"] == code_digest())
    except (ValueError, KeyError, TypeError, RecursionError):
        return False


def _process(name: str, host: str, port: int) -> Finding:
    """Of this machine; others are their own doctor's."""
    answer = _get(host, port, "/health/ready")
    if answer is None:
        return Finding("note", name, f"does not answer at {host}:{port} (it may run elsewhere)")
    if answer.status == HTTPStatus.OK:
        return Finding("ok", name, f"ready at {host}:{port}")
    return Finding("wrong", name, f"not ready at {host}:{port}: {_problem(answer.text)}")


def _problem(answer: str) -> str:
    """Why it is not ready: the API says it as it says every error, the others in a line."""
    try:
        said = str(json.loads(answer)["error"]["message"])
    except (ValueError, KeyError, TypeError, RecursionError):
        said = answer
    return " ".join(said.split()).removeprefix("Not ready: ")[:SAID_CHARACTERS_MAX]


def _get(host: str, port: int, path: str) -> _Answer | None:
    """None where nobody answers in time."""
    connection = HTTPConnection(host, port, timeout=PROBE_S)
    try:
        connection.request("GET", path)
        response = connection.getresponse()
        return _Answer(response.status, response.read().decode("utf-8", "replace"))
    except (OSError, HTTPException):
        return None
    finally:
        connection.close()
