"""Idempotency-Key: a POST that is sent twice happens once, and answers the same twice.

What was answered is kept in the transaction of the change itself, for a day. Refusals are not
kept: nothing happened, and the next try may succeed.
"""

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from typing import Annotated, Any, Final

import msgspec
from fastapi import Depends, Header, Request
from sqlalchemy import delete
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session
from starlette.responses import Response

from api.errors import Refused
from api.rules.change import Change, Transaction
from api.storage.ledgers import IdempotencyKey
from api.storage.turns import EVERYBODY
from api.web.answers import Json
from api.web.context import Api, Caller

KEPT: Final = timedelta(days=1)


@dataclass(frozen=True, slots=True)
class Answer:
    """A status and a body. `kept` replaces the body where it must not be stored (secrets)."""

    status: int
    body: Any
    kept: Any = None


@dataclass(frozen=True, slots=True)
class Once:
    """The request's key (empty: none given), and a hash of all it says."""

    key: str
    request_hash: str


NOT_REPEATED: Final = Once("", "")
"""For requests that take no Idempotency-Key, and are refused with one."""


async def read_once(
    request: Request,
    idempotency_key: Annotated[
        str,
        Header(
            max_length=255,
            description="Any text that is new for each new request; repeat it when retrying.",
        ),
    ] = "",
) -> Once:
    request_line = f"{request.method} {request.url.path}?{request.url.query}\n".encode()
    digest = hashlib.sha256(request_line + await request.body()).hexdigest()
    return Once(idempotency_key, digest)


OncePart = Annotated[Once, Depends(read_once)]


def change_once(
    api: Api,
    caller: Caller,
    once: Once,
    organization_id: str,
    do: Callable[[Change], Answer],
) -> Response:
    """Runs `do` in one transaction, unless its key says that it already ran."""
    return transact_once(
        api, caller, once, organization_id, lambda held: do(held.change(organization_id))
    )


def transact_once(
    api: Api,
    caller: Caller,
    once: Once,
    organization_id: str | None,
    do: Callable[[Transaction], Answer],
) -> Response:
    """As `change_once`, for what concerns several organizations, or none yet."""
    try:
        return _transact(api, caller, once, organization_id, do)
    except IntegrityError:
        if not once.key:
            raise
        # Another request with the same key was quicker and has stored its answer by now.
        return _transact(api, caller, once, organization_id, do)


def begin_once(
    api: Api,
    caller: Caller,
    once: Once,
    organization_id: str,
    begin: Callable[[Change], str],
) -> str:
    """For what goes on outside of the transaction: the id of what was begun. A repeat gets the same
    id, so that it goes on with what a first try left unfinished."""
    try:
        return _begin(api, caller, once, organization_id, begin)
    except IntegrityError:
        if not once.key:
            raise
        return _begin(api, caller, once, organization_id, begin)


def _begin(
    api: Api, caller: Caller, once: Once, organization_id: str, begin: Callable[[Change], str]
) -> str:
    with api.control.transaction(caller.actor(), organization_id) as transaction:
        change = transaction.change(organization_id)
        former = _find(transaction.session, caller, once)
        if former is not None:
            return former.body.decode()
        begun = begin(change)
        if once.key:
            _keep(transaction, caller, once, organization_id, 202, begun.encode())
        return begun


def _transact(
    api: Api,
    caller: Caller,
    once: Once,
    organization_id: str | None,
    do: Callable[[Transaction], Answer],
) -> Response:
    with api.control.transaction(caller.actor(), organization_id or EVERYBODY) as transaction:
        if organization_id is not None:
            transaction.change(organization_id)
        former = _find(transaction.session, caller, once)
        if former is not None:
            return Response(former.body, former.status, media_type="application/json")
        answer = do(transaction)
        body = msgspec.json.encode(answer.body)
        if once.key:
            stored_body = body if answer.kept is None else msgspec.json.encode(answer.kept)
            _keep(transaction, caller, once, organization_id, answer.status, stored_body)
    if answer.status == 204:
        return Response(status_code=204)
    return Json(answer.body, answer.status)


def _find(session: Session, caller: Caller, once: Once) -> IdempotencyKey | None:
    if not once.key:
        return None
    former = session.get(IdempotencyKey, (caller.key_id, once.key))
    if former is not None and former.request_hash != once.request_hash:
        raise Refused(
            422,
            "idempotency_key_reused",
            "This Idempotency-Key was used for another request.",
            "Idempotency-Key",
            "Use a new key for a new request.",
        )
    return former


def _keep(
    transaction: Transaction,
    caller: Caller,
    once: Once,
    organization_id: str | None,
    status: int,
    body: bytes,
) -> None:
    now = transaction.clock()
    transaction.session.execute(
        delete(IdempotencyKey).where(IdempotencyKey.created_at < now - KEPT)
    )
    transaction.session.add(
        IdempotencyKey(
            actor=caller.key_id,
            key=once.key,
            organization_id=organization_id,
            request_hash=once.request_hash,
            status=status,
            body=body,
            created_at=now,
        )
    )
    transaction.session.flush()
