"""`metering facts import`: after an older SQL backup was restored (see `api.repair.importer`)."""

import asyncio
import time
from typing import TYPE_CHECKING, Annotated, Final

import typer

from cli.command_line import Commands
from cli.configuration import load_settings
from cli.errors import Failure

if TYPE_CHECKING:
    from api.repair.importer import Imported
    from api.repair.recall import Recalled
    from api.rules.change import Control
    from api.storage.lock import WorkLock
    from schemas.settings import Settings

LOCK_WAIT_S: Final = 5.0
LOCK_LOOK_S: Final = 0.05

app = Commands("Facts of the control plane.")


@app.callback()
def root() -> None:
    """Facts of the control plane."""


@app.command("import")
def import_(
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
    forget: Annotated[
        list[str] | None,
        typer.Option(
            metavar="ORGANIZATION",
            help="An organization of which somebody else wrote: learn nothing of it.",
        ),
    ] = None,
) -> None:
    """Bring the database to the ends of its topics, so that publishing may go on.

    Names are not in facts: they come back from ClickHouse, if it answers. Of an e-mail alias the
    facts have only a hash: its address comes back if it is somebody's main one or if usage was
    sent under it; of the others the output says how many there are. An API process may run if
    it says that an organization is halted or unknown; it goes on by itself afterwards.
    """
    from api.repair.importer import import_facts
    from api.storage.lock import PUBLISHING, work_lock
    from cli.control import opened, operator

    settings = load_settings()
    with opened(settings) as control:
        if not yes:
            typer.confirm("Write what the topics have and the database has not?", abort=True)
        lock = work_lock(control.store, PUBLISHING)
        if not _taken(lock):
            raise Failure("An API process publishes just now: stop it first.")
        try:
            imported = asyncio.run(
                import_facts(
                    settings,
                    control.store,
                    control.clock,
                    control.alias_secret,
                    operator(),
                    frozenset(forget or ()),
                )
            )
        finally:
            lock.release()
        recalled = _recall(settings, control, imported)
    typer.echo(
        f"{imported.learnt} facts of {len(imported.organizations)} organizations were learnt, "
        f"{imported.moved_behind} unpublished ones moved behind them, {imported.ignored} ignored. "
        f"{imported.default_prices} prices came back into the default book; "
        f"{imported.waiting_facts} facts of it wait for organizations that had not heard of them. "
        f"{recalled}"
    )
    for why in imported.unrepairable.values():
        typer.echo(why, err=True)
    if imported.unrepairable:
        raise Failure(
            f"{len(imported.unrepairable)} organizations stay halted; if somebody else wrote their "
            "facts, `--forget ORGANIZATION` lifts that."
        )


def _taken(lock: "WorkLock") -> bool:
    """A process that has stopped publishing still looks at the topics now and then."""
    deadline = time.monotonic() + LOCK_WAIT_S
    while not lock.take():
        if time.monotonic() > deadline:
            return False
        time.sleep(LOCK_LOOK_S)
    return True


def _recall(settings: "Settings", control: "Control", imported: "Imported") -> str:
    """Names come from ClickHouse, if it answers."""
    from api.repair.recall import Recalled, recall_names, to_recall
    from warehouse.connection import WarehouseError, connect

    try:
        client = connect(settings)
    except WarehouseError:
        return (
            "ClickHouse is away: what came back has its id for a name. "
            + _unknown(Recalled(unknown_aliases=imported.unknown_aliases))
        ).strip()
    try:
        organizations = imported.organizations | to_recall(control.store)
        recalled = recall_names(control.store, client, organizations, control.alias_secret)
    finally:
        client.close()
    return (
        f"{recalled.names} names and {recalled.aliases} aliases came back from ClickHouse. "
        + _unknown(recalled)
    ).strip()


def _unknown(recalled: "Recalled") -> str:
    """What cannot be restored."""
    if not recalled.unknown_aliases:
        return ""
    return (
        f"The addresses of {recalled.unknown_aliases} aliases are lost: usage under them still "
        "goes to their members, but they are not listed; add them again to see and remove them."
    )
