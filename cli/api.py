"""`metering api`: one API process, or its OpenAPI document."""

from typing import TYPE_CHECKING, Any

from cli.configuration import settings_file
from cli.errors import WRONG_SETTINGS, Failure

if TYPE_CHECKING:
    from api.options import ApiOptions
    from api.payments.partner_file import Partners
    from schemas.settings import Settings


def run_api(settings: "Settings", *, openapi: bool = False) -> None:
    """Serves until a signal ends it; with `openapi`, prints the document and returns.

    Raises Failure where the port is taken, or the database is not migrated or does not answer.
    """
    partners_of(settings)
    if openapi:
        import json

        import typer

        from api.app import openapi as document

        typer.echo(json.dumps(document(settings), indent=2))
        return
    from api.errors import Refused
    from api.server import CannotListen, NotMigrated, run

    options = load_options()
    try:
        run(settings, options)
    except (CannotListen, NotMigrated, Refused) as error:
        raise Failure(str(error)) from error


def partners_of(settings: "Settings") -> "Partners":
    """What METERING_PARTNERS_FILE says. Raises Failure naming what is wrong."""
    from api.payments.partner_file import WrongPartnersFile, load_partners

    try:
        return load_partners(settings.partners_file)
    except WrongPartnersFile as error:
        raise Failure(f"wrong settings: {error}", WRONG_SETTINGS) from None


def load_options() -> "ApiOptions":
    """METERING_API_* from the environment, then the file. Raises Failure naming what is wrong."""
    from pydantic import ValidationError

    from api.options import ApiOptions

    read: dict[str, Any] = {"_env_file": settings_file()}
    try:
        return ApiOptions(**read)
    except ValidationError as error:
        wrong = error.errors()[0]
        name = f"METERING_API_{wrong['loc'][0]}".upper()
        raise Failure(f"wrong settings: {name}: {wrong['msg']}", WRONG_SETTINGS) from None
