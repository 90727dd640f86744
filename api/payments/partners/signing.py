"""Signatures between us and a partner, both ways by Standard Webhooks.

Rules: what came is checked as raw bytes, before anything parses it; every configured secret may
have signed it, and everything of ours is signed with all of them, so that secrets can be renewed
without a pause. Times are the wall clock's, never the billing clock's: five minutes to either side.
"""

import re
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Final
from uuid import uuid4

from standardwebhooks.webhooks import Webhook, WebhookVerificationError

ID_HEADER: Final = "webhook-id"
TIMESTAMP_HEADER: Final = "webhook-timestamp"
SIGNATURE_HEADER: Final = "webhook-signature"
_HEADERS: Final = {
    ID_HEADER: re.compile(r"[\x21-\x7e]{1,256}"),
    TIMESTAMP_HEADER: re.compile(r"[0-9]{1,12}"),
    # The library splits these without looking; eight secrets at once are plenty.
    SIGNATURE_HEADER: re.compile(
        r"v[0-9a-z]{1,8},[A-Za-z0-9+/=]{1,128}( v[0-9a-z]{1,8},[A-Za-z0-9+/=]{1,128}){0,7}"
    ),
}


class BadSignature(Exception):
    """Nobody who knows a secret sent this, or not now. The message says which, and no secret."""


def signed_headers(
    body: str, secrets: Sequence[str], *, message_id: str = "", at: datetime | None = None
) -> dict[str, str]:
    """The three headers for what we send. `body` is the exact text; a request without one signs
    its method and its target behind the base address, as `GET /charges?since=…`."""
    message_id = message_id or f"msg_{uuid4().hex}"
    at = at or datetime.now(UTC)
    signatures = [Webhook(secret).sign(message_id, at, body) for secret in secrets]
    return {
        ID_HEADER: message_id,
        TIMESTAMP_HEADER: str(int(at.timestamp())),
        SIGNATURE_HEADER: " ".join(signatures),
    }


def verify(body: bytes, headers: Iterable[tuple[bytes, bytes]], secrets: Sequence[str]) -> str:
    """The message's id. Raises BadSignature where no secret of these signed these bytes lately."""
    given = _given(headers)
    complaint = "No matching signature found"
    for secret in secrets:
        try:
            Webhook(secret).verify(body, dict(given), json_parse=False)
        except WebhookVerificationError as error:
            complaint = str(error)
        except ValueError:
            # The body is not UTF-8, or a signature not base64.
            complaint = "The body or its signature cannot be read"
        else:
            return given[ID_HEADER]
    raise BadSignature(f"{complaint}.")


def _given(headers: Iterable[tuple[bytes, bytes]]) -> Mapping[str, str]:
    """Each of the three headers, exactly once, in the form that the library can take."""
    found: dict[str, str] = {}
    for raw_name, raw_value in headers:
        name = raw_name.decode("latin-1").lower()
        pattern = _HEADERS.get(name)
        if pattern is None:
            continue
        value = raw_value.decode("latin-1")
        if name in found or not pattern.fullmatch(value):
            raise BadSignature(f"The header {name} is not as it should be.")
        found[name] = value
    missing = [name for name in _HEADERS if name not in found]
    if missing:
        raise BadSignature(f"The header {missing[0]} is missing.")
    return found
