"""`metering keys`: API keys and SCIM tokens from the command line; how the first one is made."""

from typing import Annotated

import typer

from cli.configuration import load_settings

app = typer.Typer(help="API keys and SCIM tokens.", no_args_is_help=True, rich_markup_mode=None)


@app.command()
def create(
    scope: Annotated[
        str, typer.Argument(help="operator, admin, group_admin, finance, ingest or scim")
    ],
    organization: Annotated[
        str, typer.Option("--organization", "-o", help="Whom the key is bound to.")
    ] = "",
    name: Annotated[str, typer.Option(help="What it is for.")] = "from the command line",
) -> None:
    """Make a key; its secret is printed this once."""
    from api.rules.keys import Scope, create_key
    from cli.control import opened, operator
    from cli.errors import Failure

    try:
        chosen = Scope(scope)
    except ValueError:
        raise Failure(f"There is no scope {scope!r}.") from None
    with opened(load_settings()) as control, control.transaction(operator()) as transaction:
        made = create_key(transaction, chosen, name, organization or None)
    typer.echo(made.secret)


@app.command("list")
def list_keys(
    organization: Annotated[
        str, typer.Option("--organization", "-o", help="Empty: keys bound to nobody.")
    ] = "",
) -> None:
    """Every key, without its secret."""
    from sqlalchemy import select

    from api.storage.ledgers import ApiKey
    from cli.control import opened

    with opened(load_settings()) as control, control.store.read() as session:
        query = select(ApiKey).order_by(ApiKey.created_at)
        if organization:
            query = query.where(ApiKey.organization_id == organization)
        else:
            query = query.where(ApiKey.organization_id.is_(None))
        for key in session.scalars(query):
            state = "revoked" if key.revoked_at else "live"
            typer.echo(f"{key.id}  {key.scope:<12} …{key.hint}  {state:<8} {key.name}")


@app.command()
def revoke(
    key_id: Annotated[str, typer.Argument(help="The key's id.")],
    organization: Annotated[str, typer.Option("--organization", "-o")] = "",
) -> None:
    """End a key, at once and for ever."""
    from api.rules.keys import revoke_key
    from cli.control import opened, operator

    with opened(load_settings()) as control, control.transaction(operator()) as transaction:
        revoke_key(transaction, key_id, organization or None)
    typer.echo(f"{key_id} is revoked.")
