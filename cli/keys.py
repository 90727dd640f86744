"""`metering keys`: API keys and SCIM tokens from the command line; how the first one is made."""

from collections.abc import Iterable
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Annotated, Final

import typer

from cli.command_line import Commands, one_of
from cli.configuration import load_settings

if TYPE_CHECKING:
    from api.storage.ledgers import ApiKey

app = Commands("API keys and SCIM tokens.")

DAYS: Final = 365
DAYS_MAX: Final = 3_650
SCOPES: Final = "operator, admin, group_admin, finance, ingest or scim"


def _scopes() -> Iterable[str]:
    from api.rules.keys import Scope

    return list(Scope)


ScopeArgument = Annotated[
    str, typer.Argument(parser=one_of("scope", _scopes), metavar="SCOPE", help=SCOPES)
]
BoundTo = Annotated[
    str,
    typer.Option(
        "--organization", "-o", metavar="ID", help="Whose key it is; only an operator's is of none."
    ),
]


@app.command()
def create(
    scope: ScopeArgument,
    organization: BoundTo = "",
    name: Annotated[str, typer.Option(help="What it is for.")] = "from the command line",
    group: Annotated[
        str, typer.Option(metavar="ID", help="For group_admin: the one group that it is for.")
    ] = "",
    days: Annotated[
        int, typer.Option(min=1, max=DAYS_MAX, help="How long it lives; a new one replaces it.")
    ] = DAYS,
) -> None:
    """Make a key; its secret is printed this once."""
    from api.rules.keys import Scope, create_key
    from cli.control import opened, operator

    with opened(load_settings()) as control, control.transaction(operator()) as transaction:
        expires_at = control.clock() + timedelta(days=days)
        key = create_key(
            transaction, Scope(scope), name, organization or None, expires_at, group or None
        )
    typer.echo(key.secret)


@app.command("list")
def list_keys(
    organization: BoundTo = "",
) -> None:
    """Every key, without its secret."""
    from sqlalchemy import select

    from api.storage.ledgers import ApiKey
    from cli.control import opened
    from cli.tables import table, text

    with opened(load_settings()) as control, control.store.read() as session:
        query = select(ApiKey).order_by(ApiKey.created_at)
        if organization:
            query = query.where(ApiKey.organization_id == organization)
        else:
            query = query.where(ApiKey.organization_id.is_(None))
        rows = [
            [
                key.id,
                f"{key.scope} of {key.group_id}" if key.group_id else key.scope,
                f"…{key.hint}",
                _state(key, control.clock()),
                key.name,
            ]
            for key in session.scalars(query)
        ]
    columns = [text(title) for title in ("ID", "Scope", "Ends in", "State", "Name")]
    typer.echo("\n".join(table(columns, rows)))


def _state(key: "ApiKey", now: datetime) -> str:
    if key.revoked_at:
        return "revoked"
    return f"{'expired' if key.expires_at <= now else 'until'} {key.expires_at:%Y-%m-%d}"


@app.command()
def revoke(
    key_id: Annotated[str, typer.Argument(help="The key's id.")],
    organization: BoundTo = "",
) -> None:
    """End a key, at once and for ever."""
    from api.rules.keys import revoke_key
    from cli.control import opened, operator

    with opened(load_settings()) as control, control.transaction(operator()) as transaction:
        revoke_key(transaction, key_id, organization or None)
    typer.echo(f"{key_id} is revoked.")
