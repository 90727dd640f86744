"""`metering up`: everything on embedded defaults, in one process tree.

Lives here: the data directory, the parts, their supervisor, the demo. What runs is the production
code with METERING_ variables, on real Kafka and the ClickHouse engine of `deploy.embedded`.
"""

import subprocess
import sys
import time
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from cli.api import load_options, load_payment_options
from cli.configuration import (
    ADMIN_KEY,
    API_URL,
    FILE_VARIABLE,
    OPERATOR_KEY,
    UP_FILE,
    data_directory,
    explicit_variables,
    load_settings,
    settings_from,
)
from cli.errors import Failure
from cli.up.data_dir import CHOSEN_BY, DataDirectory
from cli.up.demo_state import DEMO_ORGANIZATION
from cli.up.directions import directions
from cli.up.parts import Command
from cli.up.payments import PaymentParts
from cli.up.supervisor import (
    StopRequested,
    Supervisor,
    saying_that_it_is_slow,
    stopping_on_signals,
)
from deploy.embedded.child import EngineError, clean_environment
from deploy.embedded.clickhouse import EmbeddedClickHouse
from deploy.embedded.kafka import EmbeddedKafka

REPORT_TIMEOUT_S: Final = 60.0


def run(
    *,
    demo: bool = False,
    given_ports: Mapping[str, int | None],
) -> None:
    """Run until SIGINT or SIGTERM. Raises `Failure` when something cannot be started."""
    load_settings()  # what is wrong is said before anything starts
    load_payment_options()
    directory = DataDirectory(data_directory())
    directory.lock()
    try:
        _run(directory, {**_configured_ports(), **given_ports}, demo=demo)
    finally:
        directory.unlock()


def _configured_ports() -> dict[str, int | None]:
    """Those that the environment or the named file chose; 0 leaves the choice to `up`."""
    options, variables = load_options(), explicit_variables()
    settings = {
        "worker_metrics": load_settings().metrics_port,
        "sink_metrics": load_settings().sink_metrics_port,
        "api": options.port,
    }
    return {
        name: port for name, port in settings.items() if port and variables.get(CHOSEN_BY[name])
    }


def _run(directory: DataDirectory, given_ports: Mapping[str, int | None], *, demo: bool) -> None:
    ports, changes = directory.ports(given_ports)
    for change in changes:
        _say(change)
    supervisor = Supervisor(_say, directory.shortage)
    try:
        with stopping_on_signals():
            try:
                _Up(directory, ports, supervisor, demo=demo).run()
            except StopRequested:
                _say("stopping")
            except EngineError as error:
                raise Failure(str(error)) from None
            finally:
                supervisor.stop()
    except StopRequested:
        # The signal came while the last line above was being written; everything is stopped by now.
        supervisor.stop()
    _say(f"stopped; the data is in {directory.path}")


class _Up:
    """One run: start everything in order, say where it is, keep it running."""

    def __init__(
        self,
        directory: DataDirectory,
        ports: Mapping[str, int],
        supervisor: Supervisor,
        *,
        demo: bool,
    ) -> None:
        self._directory = directory
        self._ports = ports
        self._supervisor = supervisor
        self._demo = demo
        self._kafka = EmbeddedKafka(directory.path, port=ports["kafka"])
        self._clickhouse = EmbeddedClickHouse(directory.path, port=ports["clickhouse"])
        self._api_url = f"http://127.0.0.1:{ports['api']}"
        self._payments = PaymentParts(
            directory, explicit_variables(), self._api_url, ports["stripe"], demo=demo
        )
        self._environment = self._make_environment()
        self._database = self._environment.get("METERING_CLICKHOUSE_DATABASE", "metering")

    def run(self) -> None:
        started_s = time.monotonic()
        self._payments.launch(self._supervisor)
        self._engines()
        self._set_up(self._write_settings())
        self._processes()
        obstacle = self._control_plane()
        _say(f"up after {time.monotonic() - started_s:.0f} s\n{self._where()}")
        if obstacle:
            _say(obstacle)
        elif self._demo:
            self._sell()
            self._supervisor.keep(self._launch("demo-traffic", "demo usage"))
            self._first_report()
        self._supervisor.watch()

    def _make_environment(self) -> dict[str, str]:
        """What all parts are told: where things are here, and how the caller tuned the rest."""
        writer, reader = self._clickhouse.writer, self._clickhouse.reader
        return explicit_variables() | {
            "METERING_DATA_DIR": str(self._directory.path),
            "METERING_KAFKA_BOOTSTRAP": self._kafka.bootstrap,
            "METERING_KAFKA_SECURITY_PROTOCOL": "PLAINTEXT",
            "METERING_KAFKA_REPLICATION": "1",
            "METERING_CLICKHOUSE_URL": self._clickhouse.url,
            "METERING_CLICKHOUSE_USER": writer.name,
            "METERING_CLICKHOUSE_PASSWORD": writer.password,
            "METERING_CLICKHOUSE_FINANCE_USER": reader.name,
            "METERING_CLICKHOUSE_FINANCE_PASSWORD": reader.password,
            "METERING_METRICS_PORT": str(self._ports["worker_metrics"]),
            "METERING_SINK_METRICS_PORT": str(self._ports["sink_metrics"]),
            "METERING_API_PORT": str(self._ports["api"]),
            "METERING_ALIAS_SECRET": self._directory.alias_secret(),
            **self._payments.environment(),
        }

    def _write_settings(self) -> Path:
        """For other commands and for people, who are also told the API's address and keys."""
        for_people = {API_URL: self._api_url, **self._payments.for_people()}
        for name in (OPERATOR_KEY, ADMIN_KEY):
            if secret := self._directory.secret(name):
                for_people[name] = secret
        return self._directory.write_settings(self._environment | for_people)

    def _control_plane(self) -> str:
        """Keys and the demo's organizations; why not, where the control plane changes nothing."""
        from cli.up.control import prepare

        settings = settings_from(self._environment)
        obstacle = prepare(settings, self._directory, with_demo=self._demo)
        self._write_settings()
        return obstacle

    def _sell(self) -> None:
        """The demo's packages, and what is bought of them; not everything that runs here."""
        from cli.up.demo_credits import sell

        keys = {name: self._directory.secret(name) for name in (OPERATOR_KEY, ADMIN_KEY)}
        obstacle = sell(
            self._api_url,
            keys[OPERATOR_KEY],
            keys[ADMIN_KEY],
            by_stand_in=self._payments.stripe is not None,
            by_partner=self._payments.partner is not None,
        )
        if obstacle:
            _say(f"demo: {obstacle}")

    def _engines(self) -> None:
        _say(f"starting Kafka and ClickHouse in {self._directory.path}")
        if self._clickhouse.notice:
            _say(self._clickhouse.notice)
        self._supervisor.start("Kafka", self._kafka)
        self._supervisor.start("ClickHouse", self._clickhouse)

    def _set_up(self, settings_file: Path) -> None:
        """Topics and tables, side by side, by the commands that production uses."""
        _say("creating topics and tables")
        environment = {FILE_VARIABLE: str(settings_file)}
        steps = [
            Command(arguments, self._directory, environment)
            for arguments in (("topics", "create"), ("migrate",))
        ]
        try:
            for step in steps:
                step.launch()
            with saying_that_it_is_slow("setting up", self._supervisor.say):
                for step in steps:
                    step.wait_until_done()
        finally:
            for step in steps:
                step.stop()

    def _processes(self) -> None:
        self._payments.wait_until_ready(self._supervisor)
        _say("starting worker, sink and API")
        ports = self._ports
        parts = [
            ("worker", self._launch("worker", "worker", ports["worker_metrics"])),
            ("sink", self._launch("sink", "sink", ports["sink_metrics"])),
            ("API", self._launch("api", "API", ports["api"])),
        ]
        for name, part in parts:
            with saying_that_it_is_slow(name, self._supervisor.say):
                part.wait_until_ready()
            self._supervisor.keep(part)

    def _launch(
        self,
        command: str,
        name: str,
        health_port: int | None = None,
    ) -> Command:
        part = Command(
            (command,),
            self._directory,
            self._environment,
            health_port=health_port,
        )
        self._supervisor.adopt(name, part)
        part.launch()
        return part

    def _first_report(self) -> None:
        """Shown once the past usage can be queried; a slow machine is told where to look."""
        from cli.up.demo import PAST_SOURCE
        from cli.up.first_report import wait_for_usage

        _say("demo: two organizations, a week of usage before the first start, and a live trickle")
        reader = self._clickhouse.reader
        has_usage = wait_for_usage(
            self._clickhouse.url,
            reader.name,
            reader.password,
            DEMO_ORGANIZATION,
            PAST_SOURCE,
            self._supervisor.watch,
            database=self._database,
        )
        arguments = _report_arguments(DEMO_ORGANIZATION)
        if not has_usage:
            _say(f"there is no usage yet; ask again with ./metering {' '.join(arguments)}")
            return
        outcome = _command(arguments, self._directory.path / UP_FILE, REPORT_TIMEOUT_S)
        _say(f"\n$ ./metering {' '.join(arguments)}\n{outcome.stdout or outcome.stderr}")

    def _where(self) -> str:
        ports, path = self._ports, self._directory.path
        local = "http://127.0.0.1"
        admin_key = self._directory.secret(ADMIN_KEY) if self._demo else ""
        rows = [
            ("data, logs", f"{path} ({path / 'logs'})"),
            ("Kafka", f"{self._kafka.bootstrap}  pid {self._kafka.pid}"),
            ("ClickHouse", f"{self._clickhouse.url}  pid {self._clickhouse.pid}"),
            ("worker", f"{local}:{ports['worker_metrics']}/metrics, /health/ready, /health/live"),
            ("sink", f"{local}:{ports['sink_metrics']}/metrics, /health/ready, /health/live"),
            ("API", f"{self._api_url}/docs, /metrics, /health/ready, /health/live"),
            *self._payments.rows(),
        ]
        if admin_key:
            rows.append(("admin key", f"{admin_key} of {DEMO_ORGANIZATION}"))
        lines = [f"  {name:<11} {where}" for name, where in rows]
        lines += directions(
            path,
            self._database,
            DEMO_ORGANIZATION if admin_key else "",
            f"./metering {' '.join(_report_arguments(DEMO_ORGANIZATION))}",
            has_keys=bool(self._directory.secret(OPERATOR_KEY)),
            has_stripe=self._payments.stripe is not None,
        )
        return "\n".join(lines)


def _report_arguments(organization_id: str) -> tuple[str, ...]:
    period = f"{datetime.now(UTC):%Y-%m}"
    return (
        "report", "spend", "--organization", organization_id, "--period", period, "--by", "group",
    )  # fmt: skip


def _command(
    arguments: tuple[str, ...], settings_file: Path, timeout_s: float
) -> "subprocess.CompletedProcess[str]":
    try:
        return subprocess.run(
            [sys.executable, "-m", "cli", *arguments],
            env=clean_environment({FILE_VARIABLE: str(settings_file)}),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=timeout_s,
            check=False,
        )
    except subprocess.TimeoutExpired:
        raise Failure(
            f"`metering {' '.join(arguments)}` took longer than {timeout_s:.0f} s"
        ) from None


def _say(message: str) -> None:
    try:
        sys.stdout.write(f"{message}\n")
        sys.stdout.flush()
    except OSError:
        # The reader of our output has gone; the pipeline keeps running until it is told to stop.
        pass
