"""`metering api`: one API process, or its OpenAPI document."""

from typing import TYPE_CHECKING, Any, TypeVar

from cli.configuration import settings_file, variable_of
from cli.errors import WRONG_SETTINGS, Failure

if TYPE_CHECKING:
    from api.options import ApiOptions, PaymentOptions
    from api.payments.partners.file import Partners
    from schemas.settings import Settings

Options = TypeVar("Options", "ApiOptions", "PaymentOptions")


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

    options, payments = load_options(), load_payment_options()
    try:
        run(settings, options, payments)
    except (CannotListen, NotMigrated, Refused) as error:
        raise Failure(str(error)) from error


def partners_of(settings: "Settings") -> "Partners":
    """What METERING_PARTNERS_FILE says. Raises Failure naming what is wrong."""
    from api.payments.partners.file import WrongPartnersFile, load_partners

    try:
        return load_partners(settings.partners_file)
    except WrongPartnersFile as error:
        raise Failure(f"wrong settings: {error}", WRONG_SETTINGS) from None


def load_options() -> "ApiOptions":
    """METERING_API_* from the environment, then the file. Raises Failure naming what is wrong."""
    from api.options import ApiOptions

    return _load(ApiOptions)


def load_payment_options() -> "PaymentOptions":
    """METERING_STRIPE_*, likewise. What was given is never repeated: it is a secret mostly."""
    from api.options import PaymentOptions

    return _load(PaymentOptions)


def _load(model: type[Options]) -> Options:
    from pydantic import ValidationError

    read: dict[str, Any] = {"_env_file": settings_file()}
    try:
        return model(**read)
    except ValidationError as error:
        wrong = error.errors(include_url=False, include_context=False, include_input=False)[0]
        message = wrong["msg"].removeprefix("Value error, ")
        name = f"{variable_of(str(wrong['loc'][0]), model)}: " if wrong["loc"] else ""
        raise Failure(f"wrong settings: {name}{message}", WRONG_SETTINGS) from None
