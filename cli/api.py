"""`metering api`: one API process, or its OpenAPI document."""

from typing import TYPE_CHECKING

from cli.errors import Failure

if TYPE_CHECKING:
    from schemas.settings import Settings


def run_api(settings: "Settings", *, openapi: bool = False) -> None:
    """Serves until a signal ends it; with `openapi`, prints the document and returns.

    Raises Failure where the database is not migrated or does not answer.
    """
    if openapi:
        import json

        import typer

        from api.app import openapi as document

        typer.echo(json.dumps(document(settings), indent=2))
        return
    from api.errors import Refused
    from api.server import NotMigrated, run

    try:
        run(settings)
    except (NotMigrated, Refused) as error:
        raise Failure(str(error)) from error
