"""METERING_PARTNERS_FILE: which partners there are, how they are reached, whom they pay for.

    [partners.acme]
    base = "https://billing.acme.example/metering/v1"
    signing_secrets = ["whsec_…"]    # ours: every request is signed with all of them
    webhook_secrets = ["whsec_…"]    # theirs: a webhook is signed with any of them
    organizations = ["org_7"]
    allow_networks = []              # private networks in which the address may be
    timeout_s = 15

Read once at start, whole or not at all: what is wrong is one line that repeats no secret.
"""

import base64
import binascii
import ipaddress
import re
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Final
from urllib.parse import urlsplit

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    SecretStr,
    ValidationError,
    field_validator,
    model_validator,
)

from api.payments.partners.outward import Network, may_connect

FILE_BYTES_MAX: Final = 4 << 20
PARTNERS_MAX: Final = 100
SECRETS_MAX: Final = 5
NETWORKS_MAX: Final = 20
ORGANIZATIONS_MAX: Final = 50_000
SECRET_PREFIX: Final = "whsec_"  # noqa: S105 - what every secret begins with
SECRET_BYTES: Final = range(24, 65)
"""As Standard Webhooks recommends."""
WIDEST_PREFIX: Final = {4: 8, 6: 7}
"""10.0.0.0/8 and fc00::/7; anything wider would allow what nobody thought of."""
NAME: Final = re.compile(r"[a-z0-9][a-z0-9-]{0,31}")
HOST: Final = re.compile(r"[a-z0-9_.-]+|[0-9a-f:.]+")
"""A name as DNS has it, or an address; one with other letters is to be written as `xn--…`."""
VARIABLE: Final = "METERING_PARTNERS_FILE"

OrganizationId = Annotated[str, Field(pattern=r"^[A-Za-z0-9._:@+-]{1,256}$")]


class WrongPartnersFile(Exception):
    """The file cannot be used; the message is one line that says where and why."""


class Partner(BaseModel):
    """One partner as configured; `name` is its key in the file."""

    model_config = ConfigDict(
        extra="forbid", frozen=True, strict=True, arbitrary_types_allowed=True
    )

    name: str
    base: str
    signing_secrets: tuple[SecretStr, ...] = Field(min_length=1, max_length=SECRETS_MAX)
    webhook_secrets: tuple[SecretStr, ...] = Field(min_length=1, max_length=SECRETS_MAX)
    organizations: frozenset[OrganizationId] = Field(
        default=frozenset(), max_length=ORGANIZATIONS_MAX
    )
    allow_networks: tuple[Network, ...] = Field(default=(), max_length=NETWORKS_MAX)
    timeout_s: float = Field(default=15.0, gt=0, le=60)

    @field_validator("signing_secrets", "webhook_secrets", mode="before")
    @classmethod
    def _are_secrets(cls, given: Any) -> Any:
        if not isinstance(given, list) or not all(isinstance(one, str) for one in given):
            raise ValueError("is to be a list of texts")
        for one in given:
            _check_secret(one)
        return tuple(SecretStr(one) for one in given)

    @field_validator("organizations", mode="before")
    @classmethod
    def _is_a_list(cls, given: Any) -> Any:
        if not isinstance(given, list) or not all(isinstance(one, str) for one in given):
            raise ValueError("is to be a list of organizations' ids")
        return frozenset(given)

    @field_validator("allow_networks", mode="before")
    @classmethod
    def _are_networks(cls, given: Any) -> Any:
        if not isinstance(given, list):
            raise ValueError("is to be a list of networks, as 10.1.0.0/16")
        networks = tuple(ipaddress.ip_network(one) for one in given)
        for network in networks:
            if network.prefixlen < WIDEST_PREFIX[network.version]:
                raise ValueError(f"{network} is too wide: name the network that the partner is in")
        return networks

    @field_validator("timeout_s", mode="before")
    @classmethod
    def _whole_seconds_too(cls, given: Any) -> Any:
        return float(given) if isinstance(given, int) and not isinstance(given, bool) else given

    @model_validator(mode="after")
    def _can_be_reached(self) -> "Partner":
        _check_base(self.base, self.allow_networks)
        ours = {one.get_secret_value() for one in self.signing_secrets}
        if ours & {one.get_secret_value() for one in self.webhook_secrets}:
            raise ValueError(
                "a secret is both in signing_secrets and webhook_secrets: what we send could be "
                "sent back to us; take different ones"
            )
        return self

    @property
    def provider(self) -> str:
        """What stands as the provider in every table, and before the charge in a grant's id."""
        return f"partner:{self.name}"


class Partners:
    """All partners of the file; an organization has one at most."""

    def __init__(self, partners: Mapping[str, Partner]) -> None:
        self.by_name = dict(partners)
        self._by_organization: dict[str, Partner] = {}
        for partner in partners.values():
            for organization_id in partner.organizations:
                other = self._by_organization.setdefault(organization_id, partner)
                if other is not partner:
                    raise WrongPartnersFile(
                        f"partners.{partner.name}.organizations: {organization_id} is "
                        f"{other.name}'s already; one partner manages an organization"
                    )
        _refuse_shared_secrets(self.by_name.values())

    @property
    def names_by_organization(self) -> dict[str, str]:
        return {each: partner.name for each, partner in self._by_organization.items()}

    def of(self, organization_id: str) -> Partner | None:
        """Who manages the organization's payments, if any partner does."""
        return self._by_organization.get(organization_id)


def load_partners(file: Path | None) -> Partners:
    """The partners of the file; none without one. Raises WrongPartnersFile with one line."""
    if file is None:
        return Partners({})
    try:
        with file.open("rb") as opened:
            raw = opened.read(FILE_BYTES_MAX + 1)
        if len(raw) > FILE_BYTES_MAX:
            raise WrongPartnersFile(f"is larger than {FILE_BYTES_MAX} bytes")
        return parse_partners(raw.decode("utf-8"))
    except OSError as error:
        raise WrongPartnersFile(f"{VARIABLE} {file}: {error.strerror or error}") from None
    except (UnicodeDecodeError, tomllib.TOMLDecodeError, RecursionError) as error:
        # A decoder's message may repeat a piece of the file: only where it is, is said.
        place = re.search(r"\(at [^)]*\)$", str(error))
        where = f" {place[0]}" if place else ""
        raise WrongPartnersFile(f"{VARIABLE} {file}: is not TOML{where}") from None
    except WrongPartnersFile as error:
        raise WrongPartnersFile(f"{VARIABLE} {file}: {error}") from None


def parse_partners(text: str) -> Partners:
    """The partners that this TOML describes. Raises as `load_partners`, without the file's name."""
    tables = tomllib.loads(text)
    unknown = sorted(set(tables) - {"partners"})
    if unknown:
        raise WrongPartnersFile(f"{unknown[0][:80]!r} is not known here; write [partners.NAME]")
    listed = tables.get("partners", {})
    if not isinstance(listed, dict) or not all(isinstance(one, dict) for one in listed.values()):
        raise WrongPartnersFile("partners: write a table for each, [partners.NAME]")
    if len(listed) > PARTNERS_MAX:
        raise WrongPartnersFile(f"partners: {PARTNERS_MAX} at most")
    return Partners({name: _partner(name, table) for name, table in listed.items()})


def _partner(name: str, table: dict[str, Any]) -> Partner:
    if not NAME.fullmatch(name):
        raise WrongPartnersFile(
            f"partners.{name[:80]!r}: a partner's name has 1 to 32 of a-z, 0-9 and -"
        )
    if "name" in table:
        raise WrongPartnersFile(f"partners.{name}.name: the table's name is the partner's")
    try:
        return Partner.model_validate({**table, "name": name})
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        place = ".".join(str(part) for part in ("partners", name, *first["loc"]))
        said = str(first["msg"]).removeprefix("Value error, ")
        raise WrongPartnersFile(f"{place}: {said}") from None


def _check_secret(text: str) -> None:
    advice = f"`{SECRET_PREFIX}` and 24 to 64 random bytes in base64"
    if not text.startswith(SECRET_PREFIX):
        raise ValueError(f"a secret is {advice}")
    try:
        raw = base64.b64decode(text.removeprefix(SECRET_PREFIX), validate=True)
    except (binascii.Error, ValueError):
        raise ValueError(f"a secret is {advice}") from None
    if len(raw) not in SECRET_BYTES:
        raise ValueError(f"a secret has {len(raw)} bytes; it is to be {advice}")


def _check_base(base: str, allowed: tuple[Network, ...]) -> None:
    if not re.fullmatch(r"[\x21-\x7e]{1,1024}", base):
        raise ValueError("base: is not an address")
    parts = urlsplit(base)
    host = parts.hostname
    # `port` raises where it is none.
    if not host or parts.port == 0 or not HOST.fullmatch(host):
        raise ValueError("base: is to be https://HOST/PATH or https://HOST:PORT/PATH")
    if parts.username is not None or parts.password is not None:
        raise ValueError("base: is to be https://HOST/PATH, without a user or password")
    if "?" in base or "#" in base or base.endswith("/"):
        raise ValueError("base: has no `?`, no `#` and no slash at its end")
    literal = _literal(host)
    if parts.scheme != "https" and not (
        parts.scheme == "http" and literal is not None and literal.is_loopback
    ):
        raise ValueError("base: is to be https (http only to 127.0.0.1, where that is allowed)")
    if literal is not None and not may_connect(str(literal), allowed):
        raise ValueError(f"base: {literal} is no public address; allow_networks may allow it")
    if literal is None and f".{host.rstrip('.')}".endswith(".localhost"):
        raise ValueError("base: localhost is no public address; name 127.0.0.1 and allow it")


def _literal(host: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    try:
        return ipaddress.ip_address(host)
    except ValueError:
        return None


def _refuse_shared_secrets(partners: Any) -> None:
    """With one secret, one partner could speak for the other."""
    owners: dict[str, str] = {}
    for partner in partners:
        for secret in {*partner.signing_secrets, *partner.webhook_secrets}:
            other = owners.setdefault(secret.get_secret_value(), partner.name)
            if other != partner.name:
                raise WrongPartnersFile(
                    f"partners.{partner.name}: has a secret of {other}; each has its own"
                )
