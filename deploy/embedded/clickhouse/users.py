"""Who may use the front. Passwords come from the environment or a file, never from arguments.

`ps` shows arguments to everybody on the machine.
"""

import base64
import binascii
import hmac
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from multidict import CIMultiDictProxy

from deploy.embedded.clickhouse.errors import refusal

WRITER_VARIABLES = ("CLICKHOUSE_FRONT_USER", "CLICKHOUSE_FRONT_PASSWORD")
READONLY_VARIABLES = ("CLICKHOUSE_FRONT_READONLY_USER", "CLICKHOUSE_FRONT_READONLY_PASSWORD")


@dataclass(frozen=True, slots=True)
class User:
    name: str
    password: str
    is_readonly: bool


Users = Mapping[str, User]


def users_from_environment(environment: Mapping[str, str]) -> Users:
    """One writer, and a read-only user when one is named."""
    users = {}
    for (name_variable, password_variable), is_readonly in (
        (WRITER_VARIABLES, False),
        (READONLY_VARIABLES, True),
    ):
        name = environment.get(name_variable)
        if name:
            password = environment.get(password_variable, "")
            if not password:
                raise ValueError(f"{password_variable} is not set, {name_variable} is")
            users[name] = User(name, password, is_readonly)
    if not users:
        raise ValueError(f"no user: set {WRITER_VARIABLES[0]} and {WRITER_VARIABLES[1]}")
    return users


def users_from_file(path: Path) -> Users:
    """`{"name": {"password": "…", "readonly": true}, …}`"""
    users_by_name = json.loads(path.read_text())
    return {
        name: User(name, entry["password"], bool(entry.get("readonly", False)))
        for name, entry in users_by_name.items()
    }


def write_users_file(path: Path, users: Users) -> None:
    """Readable by the owner alone, from its first byte on."""
    path.touch(mode=0o600)
    path.chmod(0o600)
    document = {
        user.name: {"password": user.password, "readonly": user.is_readonly}
        for user in users.values()
    }
    path.write_text(json.dumps(document, indent=2) + "\n")


def authenticate(
    users: Users, headers: CIMultiDictProxy[str], parameters: Mapping[str, str]
) -> User:
    """The user of a request: ClickHouse's own headers, basic authentication, or parameters."""
    name, password = _credentials(headers, parameters)
    user = users.get(name)
    expected = user.password if user is not None else ""
    is_right = hmac.compare_digest(expected.encode(), password.encode())
    if user is None or not is_right:
        raise refusal(
            516,
            f"{name}: Authentication failed: password is incorrect, or there is no user with"
            " such name.",
        )
    return user


def _credentials(headers: CIMultiDictProxy[str], parameters: Mapping[str, str]) -> tuple[str, str]:
    name = headers.get("X-ClickHouse-User")
    if name is not None:
        return name, headers.get("X-ClickHouse-Key", "")
    authorization = headers.get("Authorization", "")
    if authorization.startswith("Basic "):
        try:
            text = base64.b64decode(authorization.removeprefix("Basic "), validate=True).decode()
        except (binascii.Error, UnicodeDecodeError):
            raise refusal(516, "The Authorization header is malformed.") from None
        name, _, password = text.partition(":")
        return name, password
    return parameters.get("user", "default"), parameters.get("password", "")
