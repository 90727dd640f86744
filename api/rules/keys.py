"""API keys and SCIM tokens: shown once, kept as hashes, scoped, rotated, revoked."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Final

from sqlalchemy import select
from sqlalchemy.orm import Session

from api.errors import Refused, invalid, not_found
from api.ids import new_id, new_secret, secret_hash
from api.rules.change import Change, Transaction
from api.rules.memberships import live_group
from api.rules.names import clean_name
from api.storage.ledgers import ApiKey


class Scope(StrEnum):
    """What a key may do. Operators and the company's own ingestion are bound to nobody."""

    OPERATOR = "operator"
    ADMIN = "admin"
    GROUP_ADMIN = "group_admin"
    FINANCE = "finance"
    INGEST = "ingest"
    SCIM = "scim"


HINT_CHARACTERS: Final = 4
LIFETIME: Final = timedelta(days=365)
"""Of a key that was made without saying for how long."""


@dataclass(frozen=True, slots=True)
class NewKey:
    """A key as it is shown once; its secret is nowhere afterwards."""

    key: ApiKey
    secret: str


def create_key(
    transaction: Transaction,
    scope: Scope,
    name: str,
    organization_id: str | None,
    expires_at: datetime | None = None,
    group_id: str | None = None,
) -> NewKey:
    """A new key, for a year if `expires_at` says nothing else. One of scope `group_admin` is for
    every group of the organization, or for one and the websites in it.

    Raises Refused where the scope, the organization and the group do not fit together.
    """
    if scope is Scope.OPERATOR and organization_id is not None:
        raise invalid("An operator's key is bound to no organization.", "organization_id")
    if scope not in (Scope.OPERATOR, Scope.INGEST) and organization_id is None:
        raise invalid(f"A key of scope {scope} belongs to an organization.", "organization_id")
    if scope is not Scope.GROUP_ADMIN and group_id is not None:
        raise invalid("Only a key of scope group_admin is bound to a group.", "group_id")
    secret = new_secret()
    change = transaction.change(organization_id, while_halted=True) if organization_id else None
    if change is not None and group_id is not None:
        live_group(change, group_id)
    now = change.now if change else transaction.clock()
    if expires_at is not None and expires_at <= now:
        raise invalid("The key would expire before it begins.", "expires_at")
    key = ApiKey(
        id=new_id("key"),
        organization_id=organization_id,
        group_id=group_id,
        scope=scope.value,
        name=clean_name(name),
        secret_hash=secret_hash(secret),
        hint=secret[-HINT_CHARACTERS:],
        created_at=now,
        expires_at=expires_at or now + LIFETIME,
    )
    transaction.session.add(key)
    transaction.session.flush()
    after: dict[str, object] = {
        "scope": key.scope,
        "name": key.name,
        "expires_at": key.expires_at.isoformat(),
    }
    if group_id is not None:
        after["group_id"] = group_id
    _audit(transaction, key, "key.create", None, after)
    return NewKey(key, secret)


def rotate_key(transaction: Transaction, key_id: str, organization_id: str | None) -> NewKey:
    """A new secret in place of the old, which ends at once; it lives as long as the old was to."""
    old = _live_key(transaction, key_id, organization_id)
    _revoke(transaction, old, "rotated")
    expires_at = transaction.clock() + (old.expires_at - old.created_at)
    return create_key(
        transaction, Scope(old.scope), old.name, old.organization_id, expires_at, old.group_id
    )


def revoke_key(transaction: Transaction, key_id: str, organization_id: str | None) -> None:
    """The key ends at once and for ever."""
    key = _live_key(transaction, key_id, organization_id)
    _revoke(transaction, key, "revoked")


def revoke_keys_of_group(change: Change, group_id: str) -> None:
    """Ends the keys that are bound to a group, which is deleted in this change."""
    for key in end_keys_of_group(change.session, change.organization_id, group_id, change.now):
        before: dict[str, object] = {"scope": key.scope, "name": key.name, "revoked": False}
        after: dict[str, object] = {"revoked": True, "why": "its group was deleted"}
        change.audit("key.revoke", ("key", key.id), before, after)


def end_keys_of_group(
    session: Session, organization_id: str, group_id: str, now: datetime
) -> Sequence[ApiKey]:
    """The live keys that are bound to a group, which are none from now on."""
    keys = session.scalars(
        select(ApiKey).where(
            ApiKey.organization_id == organization_id,
            ApiKey.group_id == group_id,
            ApiKey.revoked_at.is_(None),
        )
    ).all()
    for key in keys:
        key.revoked_at = now
    session.flush()
    return keys


def _revoke(transaction: Transaction, key: ApiKey, why: str) -> None:
    key.revoked_at = transaction.clock()
    before: dict[str, object] = {"scope": key.scope, "name": key.name, "revoked": False}
    _audit(transaction, key, "key.revoke", before, {"revoked": True, "why": why})


def _live_key(transaction: Transaction, key_id: str, organization_id: str | None) -> ApiKey:
    key = transaction.session.get(ApiKey, key_id, with_for_update=True)
    if key is None or key.revoked_at is not None or key.organization_id != organization_id:
        raise not_found("key", key_id, "key_id")
    return key


def _audit(
    transaction: Transaction,
    key: ApiKey,
    action: str,
    before: dict[str, object] | None,
    after: dict[str, object],
) -> None:
    subject = ("key", key.id)
    if key.organization_id:
        # A key makes no facts, and a leaked one must end whatever else is halted.
        change = transaction.change(key.organization_id, while_halted=True)
        change.audit(action, subject, before, after)
    else:
        transaction.audit(action, subject, before, after)


def authenticate(session: Session, secret: str, now: datetime) -> ApiKey:
    """The key with this secret. Raises Refused (401), the same for every kind of wrong."""
    key = session.scalar(select(ApiKey).where(ApiKey.secret_hash == secret_hash(secret)))
    if key is None or key.revoked_at is not None or key.expires_at <= now:
        raise unauthorized()
    return key


def unauthorized() -> Refused:
    return Refused(
        401,
        "unauthorized",
        "The API key is missing, wrong, expired or revoked.",
        "authorization",
        "Send the key as the user name of Basic authentication, or as a Bearer token.",
        headers={"WWW-Authenticate": 'Basic realm="metering", Bearer realm="metering"'},
    )
