"""`metering facts import`: after an older SQL backup was restored (see `api.outbox.importer`)."""

import asyncio
import time
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated, Final

import typer

from cli.configuration import load_settings
from cli.errors import Failure

if TYPE_CHECKING:
    from api.outbox.lock import PublisherLock
    from api.storage.store import Store
    from schemas.settings import Settings

LOCK_WAIT_S: Final = 5.0
LOCK_LOOK_S: Final = 0.05

app = typer.Typer(help="Facts of the control plane.", no_args_is_help=True, rich_markup_mode=None)


@app.callback()
def root() -> None:
    """Facts of the control plane."""


@app.command("import")
def import_(
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
) -> None:
    """Bring the database to the ends of its topics, so that publishing may go on.

    Names are not in facts: they come back from ClickHouse, if it answers. An API process may run
    if it has stopped publishing; it goes on by itself afterwards.
    """
    from api.outbox.importer import Unrepairable, import_facts
    from api.outbox.lock import publisher_lock
    from cli.control import opened

    settings = load_settings()
    with opened(settings) as control:
        if not yes:
            typer.confirm("Write what the topics have and the database has not?", abort=True)
        lock = publisher_lock(control.store)
        if not _taken(lock):
            raise Failure("An API process publishes just now: stop it first.")
        try:
            done = asyncio.run(import_facts(settings, control.store, lambda: datetime.now(UTC)))
        except Unrepairable as error:
            raise Failure(str(error)) from error
        finally:
            lock.release()
        recalled = _recall(settings, control.store, done.organizations)
    typer.echo(
        f"{done.learnt} facts of {len(done.organizations)} organisations were learnt, "
        f"{done.moved_behind} unpublished ones moved behind them, {done.ignored} ignored. "
        f"{recalled}"
    )


def _taken(lock: "PublisherLock") -> bool:
    """A process that has stopped publishing still looks at the topics now and then."""
    deadline = time.monotonic() + LOCK_WAIT_S
    while not lock.take():
        if time.monotonic() > deadline:
            return False
        time.sleep(LOCK_LOOK_S)
    return True


def _recall(settings: "Settings", store: "Store", organization_ids: set[str]) -> str:
    """Names come from ClickHouse, if it answers."""
    from api.outbox.recall import recall_names
    from warehouse.connection import WarehouseError, connect

    try:
        client = connect(settings)
    except WarehouseError:
        return "ClickHouse is away: what came back has its id for a name."
    try:
        return f"{recall_names(store, client, organization_ids)} names came back from ClickHouse."
    finally:
        client.close()
