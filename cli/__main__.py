"""`python -m cli`, which `./metering` runs: every command, its options, and how it fails.

Nothing heavy is imported here: each command imports what it needs when it runs.
"""

import asyncio
import logging
import os
import sys
from collections.abc import Coroutine
from datetime import UTC, datetime, timedelta
from importlib import import_module, metadata
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final, TypeVar

import typer

from cli.command_line import Commands, OrganizationOption, one_of
from cli.errors import FAILED, Failure, Unreachable, one_line

if TYPE_CHECKING:
    from schemas.settings import Settings

app = Commands("Usage metering and credit billing on Kafka and ClickHouse, exactly once.")
topics_app = Commands("Kafka topics.")
app.add_typer(topics_app, name="topics")

OWN_ERRORS: Final = {
    *("WarehouseError", "TopicsError", "LoginError", "EngineError", "SinkError", "StoreError"),
}
"""Errors of ours whose text is meant for people; by name, since importing them takes time."""
AWAY_ERRORS: Final = {"WarehouseAway", "KafkaConnectionError"}
"""Errors that say that a server does not answer at all."""

Result = TypeVar("Result")


def _input_topics() -> "tuple[str, ...]":
    from schemas.topics import INPUTS

    return INPUTS


TopicOption = Annotated[
    str,
    typer.Option(
        parser=one_of("topic that is written to", _input_topics),
        metavar="TOPIC",
        help="usage, memberships or credits.",
    ),
]


def main() -> None:
    """Run a command; whatever fails is one line on stderr, and a traceback only for `debug`."""
    # Libraries log nothing until a process sets its logging up, so a failure is one line of ours.
    logging.getLogger().addHandler(logging.NullHandler())
    try:
        app(prog_name="metering")
    except Failure as failure:
        _complain(_explained(failure))
        sys.exit(failure.exit_code)
    except KeyboardInterrupt:
        sys.exit(130)
    except BrokenPipeError:
        # The reader of our output has had enough. Python would complain again when it flushes.
        sys.stdout = None
        sys.exit(0)
    except Exception as error:
        if _is_debugging():
            raise
        _complain(_expected(error))
        sys.exit(FAILED)


@app.callback(invoke_without_command=True)
def root(
    version: Annotated[bool, typer.Option("--version", help="Print the version.")] = False,
) -> None:
    if version:
        typer.echo(f"metering {package_version()}")
        raise typer.Exit


PortOption = Annotated[
    int | None, typer.Option(min=1, max=65_535, help="Default: a free one, kept.")
]


@app.command()
def up(
    demo: Annotated[
        bool, typer.Option("--demo", help="Two organizations with live usage, and credits to buy.")
    ] = False,
    kafka_port: PortOption = None,
    clickhouse_port: PortOption = None,
    stripe_port: PortOption = None,
) -> None:
    """Run everything here: Kafka, ClickHouse, worker, sink, API. Ctrl-C stops it."""
    from cli.up import run

    run(
        demo=demo,
        given_ports={"kafka": kafka_port, "clickhouse": clickhouse_port, "stripe": stripe_port},
    )


@app.command()
def worker() -> None:
    """Run one stream worker until SIGTERM: usage to rated, debited records."""
    from streams.worker import run

    run(_settings(with_logging=True))


@app.command()
def sink(
    from_earliest: Annotated[
        bool,
        typer.Option(
            "--from-earliest", help="Where the log was cut off, go on with what is left of it."
        ),
    ] = False,
) -> None:
    """Run the sink until SIGTERM: rated records, ledger and dead letters into ClickHouse."""
    from sinks.process import run

    run(_settings(with_logging=True), from_earliest=from_earliest)


@topics_app.command("create")
def topics_create() -> None:
    """Create the topics that are missing; check the others. Safe to repeat."""
    from streams.kafka import create_topics

    settings = _settings()
    report = _run(create_topics(settings))
    for name in report.created:
        typer.echo(f"created  {name}")
    typer.echo(
        f"{len(report.created)} created, {len(report.existing)} as they should be, "
        f"{settings.partitions} partitions each"
    )


@app.command()
def migrate() -> None:
    """Create or update tables and views, in ClickHouse and SQL. Safe to repeat."""
    from cli.control_plane import migrate_database
    from warehouse.migrations import migrate as migrate_warehouse

    settings = _settings()
    report = migrate_warehouse(settings)
    for name in report.applied:
        typer.echo(f"applied  {name}")
    typer.echo(f"{len(report.applied)} applied, {len(report.already_applied)} were there")
    typer.echo(report.access)
    typer.echo(migrate_database(settings))


@app.command()
def emit(
    file: Annotated[str, typer.Argument(metavar="FILE|-", help="JSON lines; - is stdin.")],
    topic: TopicOption = "usage",
    organization: Annotated[
        str | None,
        typer.Option("--organization", "-o", metavar="ID", help="The key of lines that name none."),
    ] = None,
) -> None:
    """Send events or facts, keyed by organization; says what was not acknowledged."""
    from cli.emit import Outcome
    from cli.emit import emit as send

    settings = _settings()
    stream = sys.stdin.buffer if file == "-" else _opened(file)
    outcome = Outcome()
    try:
        with stream:
            _run(send(settings, stream, outcome, topic, organization))
    except (Failure, KeyboardInterrupt):
        # Without a single line there is nothing to account for.
        if outcome.acknowledged or outcome.failed:
            typer.echo(outcome.account(topic), err=True)
        raise
    typer.echo(outcome.summary(topic), err=True)
    if outcome.failed:
        raise Failure(outcome.complaint())


@app.command()
def generate(
    events: Annotated[int, typer.Option(min=0, help="Usage events.")] = 10_000,
    organizations: Annotated[int, typer.Option(min=1)] = 10,
    seed: Annotated[int, typer.Option()] = 1,
    start: Annotated[
        datetime | None,
        typer.Option(help="Of the usage, UTC. Default: yesterday, 00:00."),
    ] = None,
    hours: Annotated[float, typer.Option(help="Time the usage is spread over.")] = 24.0,
    duplicates: Annotated[float, typer.Option(min=0, max=1, help="Share sent twice.")] = 0.0,
    topic: TopicOption = "usage",
) -> None:
    """Print a seeded workload for `emit`: memberships, credits, usage, to be sent in that order."""
    from cli import workload

    today = datetime.now(UTC).replace(hour=0, minute=0, second=0, microsecond=0)
    since = today - timedelta(days=1) if start is None else start.replace(tzinfo=UTC)
    plan = workload.Plan(events, organizations, seed, since, hours, duplicates)
    match topic:
        case "usage":
            lines = workload.usage(plan)
        case "memberships":
            secret = _settings().alias_secret.get_secret_value().encode()
            lines = workload.memberships(plan, secret)
        case _:
            lines = workload.credits(plan)
    for line in lines:
        sys.stdout.buffer.write(line + b"\n")
    sys.stdout.buffer.flush()


@app.command()
def doctor() -> None:
    """Check settings, servers, topics, tables, processes, versions, disk; say what to mend."""
    from cli.configuration import nothing_runs_here
    from cli.doctor import examine, render

    findings = _run(examine(_settings()))
    typer.echo(render(findings))
    if any(finding.is_wrong for finding in findings):
        if advice := nothing_runs_here():
            typer.echo(advice)
        raise typer.Exit(FAILED)


@app.command()
def config() -> None:
    """Print the effective settings, secrets masked, and where each comes from."""
    from cli.api import load_options, load_payment_options, partners_of
    from cli.configuration import effective, load_settings, partner_settings, unknown_variables
    from cli.tables import table, text

    chosen = load_settings()
    settings = effective(chosen, load_options(), load_payment_options())
    settings += partner_settings(partners_of(chosen), chosen.partners_file)
    columns = [text("Variable"), text("Value"), text("From")]
    rows = [(each.variable, each.value or "-", each.source) for each in settings]
    typer.echo("\n".join(table(columns, rows)))
    for complaint in unknown_variables():
        typer.echo(complaint, err=True)


@app.command(passes_on=True)
def test(context: typer.Context) -> None:
    """Check everything: format, lint, types, imports, tests. With arguments only pytest runs, with
    them: `metering test tests/cli/test_emit.py -k pipe`.
    """
    # Behind other arguments, `--help` is meant for pytest.
    if context.args in (["-h"], ["--help"]):
        typer.echo(context.get_help())
        return
    from cli.check import check

    check(context.args)


def _delegate(
    name: str, module: str, about: str, *, hidden: bool = False, adopting: bool = False
) -> None:
    """A command whose arguments its own module reads; imported when it runs."""

    @app.command(name, help=about, passes_on=True, hidden=hidden)
    def command(context: typer.Context) -> None:
        if adopting:
            from cli.configuration import adopt_settings_file

            adopt_settings_file()
        loaded = _module(module)
        if hasattr(loaded, "app"):
            loaded.app(args=context.args, prog_name=f"metering {name}")
        else:
            sys.exit(loaded.main(context.args))


_delegate("api", "cli.control_plane", "Run the control plane's API until SIGTERM.", adopting=True)
_delegate("groups", "cli.groups", "Billing groups, by hand and by file.", adopting=True)
_delegate("keys", "cli.keys", "API keys and SCIM tokens.", adopting=True)
_delegate("packages", "cli.packages", "Packages of credits that are sold.", adopting=True)
_delegate("credits", "cli.credits", "Credits that are bought.", adopting=True)
_delegate("facts", "cli.facts_import", "Facts, after a restored backup.", adopting=True)
_delegate("report", "cli.report", "Spend, credits and overage, as table, CSV or JSON.")
_delegate("explain", "cli.explain", "Why an event cost what it cost.")
_delegate("dead-letters", "cli.dead_letters", "List, show and replay what was refused.")
_delegate("verify", "cli.verification", "The crash proof: kill parts, compare with a model.")
_delegate("fuzz", "cli.fuzzing", "Send whatever anybody may send, and count every record.")
_delegate("bench", "bench.__main__", "Measure, with a correctness check of every engine.")
_delegate("demo-traffic", "cli.up.traffic", "The demo's usage, for `up --demo`.", hidden=True)


@app.command("erase-member")
def erase_member(
    member: Annotated[str, typer.Argument(help="The member's id.")],
    organization: OrganizationOption,
) -> None:
    """Forget a person's name and addresses; their usage keeps the id."""
    from cli.members import erase_member as erase

    typer.echo(erase(_settings(), organization, member))


def package_version() -> str:
    try:
        return metadata.version("metering")
    except metadata.PackageNotFoundError:
        # A checkout is run in place, never installed.
        import tomllib

        project = Path(__file__).resolve().parents[1] / "pyproject.toml"
        return str(tomllib.loads(project.read_text())["project"]["version"])


def _settings(*, with_logging: bool = False) -> "Settings":
    from cli.configuration import load_settings

    settings = load_settings()
    if with_logging:
        from cli.logging_setup import set_up_logging

        set_up_logging(settings.log_format, settings.log_level)
    return settings


def _run(work: Coroutine[Any, Any, Result]) -> Result:
    if _is_debugging():
        from cli.logging_setup import set_up_logging

        set_up_logging("console", "debug")
    return asyncio.run(work)


def _module(name: str) -> Any:
    try:
        return import_module(name)
    except ModuleNotFoundError as error:
        if error.name is not None and (name == error.name or name.startswith(f"{error.name}.")):
            raise Failure(f"this is not part of this release yet ({name})") from None
        raise


def _opened(file: str) -> Any:
    try:
        return Path(file).open("rb")
    except OSError as error:
        raise Failure(f"{file} cannot be read: {error.strerror}") from None


def _explained(failure: Failure) -> str:
    if not isinstance(failure, Unreachable):
        return str(failure)
    from cli.configuration import nothing_runs_here

    return nothing_runs_here() or str(failure)


def _expected(error: Exception) -> str:
    """One line about an error that no command has put into words of its own."""
    kinds = {kind.__name__ for kind in type(error).__mro__}
    if kinds & AWAY_ERRORS:
        from cli.configuration import nothing_runs_here

        if advice := nothing_runs_here():
            return advice
    if kinds & OWN_ERRORS:
        return str(error)
    if isinstance(error, UnicodeEncodeError):
        for given in sys.argv[1:]:
            if not given.isascii() and "\ufffd" in os.fsencode(given).decode(errors="replace"):
                return f"{given!r} is not UTF-8"
    if type(error).__module__ == "aiokafka.errors":
        return f"Kafka: {one_line(error)}; `metering doctor` says more"
    return f"{type(error).__name__}: {one_line(error)} (METERING_LOG_LEVEL=debug shows where)"


def _is_debugging() -> bool:
    return os.environ.get("METERING_LOG_LEVEL", "").lower() == "debug"


def _complain(message: str) -> None:
    sys.stderr.write(f"metering: {message}\n")


if __name__ == "__main__":
    main()
