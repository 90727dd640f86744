"""Where the effective settings come from: the environment, then a file, then the defaults.

The file is METERING_CONFIG_FILE (`NAME=value` lines). Without one, and without addresses in the
environment, a command talks to the `metering up` of its data directory, whose addresses and secrets
are in `up.env` there: a production process, which has addresses, never picks those up by accident.
"""

import difflib
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from dotenv import dotenv_values
from pydantic import SecretStr, ValidationError
from pydantic_settings import BaseSettings

from api.options import ApiOptions, PaymentOptions
from api.payments.partners.file import Partners
from cli.errors import WRONG_SETTINGS, Failure
from cli.masking import MASK, without_secrets
from schemas.settings import DEFAULT_DATA_DIR, Settings

PREFIX: Final = "METERING_"
MODELS: Final = (Settings, ApiOptions, PaymentOptions)
API_URL: Final = "METERING_API_URL"
OPERATOR_KEY: Final = "METERING_API_OPERATOR_KEY"
ADMIN_KEY: Final = "METERING_API_ADMIN_KEY"
"""Where `up.env` tells people where the API is, and their keys; no process reads these three."""
STRIPE_CONTROL: Final = "METERING_STRIPE_CONTROL_TOKEN"
"""Likewise, what opens `/_control/` of the stand-in for Stripe."""
FILE_VARIABLE: Final = "METERING_CONFIG_FILE"
ADDRESS_VARIABLES: Final = ("METERING_KAFKA_BOOTSTRAP", "METERING_CLICKHOUSE_URL")
ADDRESS: Final = "://"
UP_FILE: Final = "up.env"
UP_LOCK: Final = "up.lock"
"""It holds the process id of the `up` that has the directory."""


NAMES_SHOWN_MAX: Final = 10


@dataclass(frozen=True, slots=True)
class Setting:
    """One effective setting; `value` is masked where it is secret."""

    variable: str
    value: str
    source: str
    """`default`, `environment`, or the file's path."""


def load_settings(environment: Mapping[str, str] = os.environ) -> Settings:
    """The effective settings. Raises `Failure` with one line that names what is wrong."""
    file = settings_file(environment)
    options: dict[str, Any] = {"_env_file": file}
    try:
        return Settings(**options)
    except ValidationError as error:
        raise Failure(f"wrong settings: {_complaints(error)}", WRONG_SETTINGS) from None


def settings_from(variables: Mapping[str, str]) -> Settings:
    """The settings that a process with these variables has; they were found valid before."""
    options: dict[str, Any] = {
        field: variables[variable_of(field)]
        for field in Settings.model_fields
        if variable_of(field) in variables
    }
    return Settings(**options)


def settings_file(environment: Mapping[str, str] = os.environ) -> Path | None:
    """The file that fills in what the environment leaves open, if any."""
    path = environment.get(FILE_VARIABLE)
    if path:
        if not Path(path).is_file():
            raise Failure(f"{FILE_VARIABLE} names {path}, which is no file", WRONG_SETTINGS)
        return Path(path)
    if any(environment.get(variable) for variable in ADDRESS_VARIABLES):
        return None
    left_by_up = data_directory(environment) / UP_FILE
    return left_by_up if left_by_up.is_file() else None


def data_directory(environment: Mapping[str, str] = os.environ) -> Path:
    """Where `up` keeps everything: METERING_DATA_DIR, else in the checkout, wherever the command
    is typed."""
    return Path(environment.get("METERING_DATA_DIR") or DEFAULT_DATA_DIR)


def nothing_runs_here(environment: Mapping[str, str] = os.environ) -> str:
    """What to say when a server does not answer because no `up` runs, the same for all commands.

    Empty where an `up` runs, or where somebody said where the servers are.
    """
    directory = data_directory(environment)
    file = settings_file({"METERING_DATA_DIR": str(directory)})
    left_by_up = dotenv_values(file) if file else {}
    if environment.get(FILE_VARIABLE) or any(
        environment.get(variable, left_by_up.get(variable)) != left_by_up.get(variable)
        for variable in ADDRESS_VARIABLES
    ):
        return ""
    if is_up_running(directory):
        return ""
    return (
        f"Nothing runs here; start `./metering up` (looked in {directory}; METERING_DATA_DIR or "
        "--data-dir choose another one)"
    )


def is_up_running(directory: Path) -> bool:
    """Whether the process that noted itself in the directory's lock still exists."""
    try:
        pid = int((directory / UP_LOCK).read_text(encoding="ascii"))
        os.kill(pid, 0)
    except (OSError, ValueError) as error:
        return isinstance(error, PermissionError)
    return True


def adopt_settings_file() -> None:
    """Make the file's variables this process's own, for code that reads the environment alone."""
    file = settings_file()
    for name, value in (dotenv_values(file) if file else {}).items():
        if value is not None:
            os.environ.setdefault(name, value)


def explicit_variables(environment: Mapping[str, str] = os.environ) -> dict[str, str]:
    """What METERING_CONFIG_FILE and the environment say, without what `up.env` would add."""
    path = environment.get(FILE_VARIABLE)
    in_file = dotenv_values(settings_file(environment)) if path else {}
    return {
        name: value
        for name, value in {**in_file, **environment}.items()
        if name.startswith(PREFIX) and name != FILE_VARIABLE and value is not None
    }


def effective(
    *parts: Settings | ApiOptions | PaymentOptions, environment: Mapping[str, str] = os.environ
) -> list[Setting]:
    """Every setting in the order of the contract, with where it came from."""
    file = settings_file(environment)
    in_file = dotenv_values(file) if file else {}
    names = {name.upper() for name in environment}
    settings = []
    for part in parts:
        for field in type(part).model_fields:
            variable = variable_of(field, type(part))
            source = "default"
            if variable in names:
                source = "environment"
            elif variable in in_file:
                source = str(file)
            settings.append(Setting(variable, _masked(getattr(part, field)), source))
    return settings


def partner_settings(partners: Partners, file: Path | None) -> list[Setting]:
    """What METERING_PARTNERS_FILE says of each partner, in the file's words."""
    rows = []
    for name, partner in sorted(partners.by_name.items()):
        shown = {
            "base": partner.base,
            "signing_secrets": " ".join(MASK for _ in partner.signing_secrets),
            "webhook_secrets": " ".join(MASK for _ in partner.webhook_secrets),
            "organizations": _some(sorted(partner.organizations)),
            "allow_networks": " ".join(str(one) for one in partner.allow_networks),
            "timeout_s": f"{partner.timeout_s:g}",
        }
        rows += [
            Setting(f"partners.{name}.{field}", value, str(file)) for field, value in shown.items()
        ]
    return rows


def _some(names: list[str]) -> str:
    more = len(names) - NAMES_SHOWN_MAX
    shown = " ".join(names[:NAMES_SHOWN_MAX])
    return f"{shown} and {more} more" if more > 0 else shown


def unknown_variables(environment: Mapping[str, str] = os.environ) -> list[str]:
    """A sentence for each METERING_ variable that nothing reads: most often a slip of the pen."""
    known = {FILE_VARIABLE, API_URL, OPERATOR_KEY, ADMIN_KEY, STRIPE_CONTROL}
    for model in MODELS:
        known |= {variable_of(field, model) for field in model.model_fields}
    complaints = []
    for name in sorted(environment):
        if name.startswith(PREFIX) and name not in known:
            near = difflib.get_close_matches(name, known, n=1)
            hint = f"; did you mean {near[0]}?" if near else ""
            complaints.append(f"{name} is set, but nothing reads it{hint}")
    return complaints


def variable_of(field: str, model: type[BaseSettings] = Settings) -> str:
    return f"{model.model_config['env_prefix']}{field.upper()}"


def _masked(value: Any) -> str:
    if isinstance(value, SecretStr):
        return MASK if value.get_secret_value() else ""
    if value is None:
        return ""
    if isinstance(value, bool):
        # As it is written in a file or a variable.
        return str(value).lower()
    return without_secrets(str(value)) if ADDRESS in str(value) else str(value)


def _complaints(error: ValidationError) -> str:
    return "; ".join(_complaint(dict(detail)) for detail in error.errors(include_url=False))


def _complaint(detail: dict[str, Any]) -> str:
    message = str(detail["msg"]).removeprefix("Value error, ")
    if not detail["loc"]:
        return message
    field = str(detail["loc"][0])
    is_secret = Settings.model_fields[field].annotation is SecretStr
    value = "" if is_secret else f" (it is {without_secrets(repr(detail['input']))})"
    return f"{variable_of(field)}: {message}{value}"
