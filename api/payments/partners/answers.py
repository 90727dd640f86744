"""What a partner's answer means: a success, a refusal, or that it is not known what happened."""

import re
from dataclasses import dataclass
from typing import Final, TypeVar
from urllib.parse import urlsplit

import msgspec

from api.payments.partners.file import Partner
from api.payments.partners.outward import Answer
from schemas import partners as contract

REFUSALS: Final = {
    400: {"invalid_request"},
    401: {"bad_signature"},
    403: {"forbidden"},
    404: {"not_found", "unknown_organization"},
    422: {"unsupported"},
}
"""Answers by which a partner says that nothing happened, and nothing will by asking again."""

Body = TypeVar("Body")


@dataclass(eq=False)
class PartnerUnclear(Exception):
    """It is not known what the partner did; ask again with the same key. `why` is for the log."""

    why: str
    retry_after_s: float = 0.0

    def __str__(self) -> str:
        return self.why


@dataclass(eq=False)
class PartnerRefused(Exception):
    """The partner did nothing, and says why."""

    status: int
    code: str
    message: str

    def __str__(self) -> str:
        return f"{self.code}: {self.message}"


def read(answer: Answer, shape: type[Body]) -> Body:
    """The body of a success. Raises PartnerRefused and PartnerUnclear."""
    if answer.status in (200, 201):
        try:
            return msgspec.json.decode(answer.body, type=shape)
        except (msgspec.DecodeError, RecursionError) as error:
            raise PartnerUnclear(f"the answer does not fit the contract: {error}"[:300]) from error
    try:
        problem = msgspec.json.decode(answer.body, type=contract.Failure).error
    except (msgspec.DecodeError, RecursionError):
        problem = contract.Problem(code="unreadable")
    if problem.code in REFUSALS.get(answer.status, ()):
        raise PartnerRefused(answer.status, problem.code, clean_message(problem.message))
    raise PartnerUnclear(f"status {answer.status}, code {problem.code!r}", _retry_after(answer))


def _retry_after(answer: Answer) -> float:
    given = answer.headers.get("retry-after", "")
    return float(given) if re.fullmatch(r"[0-9]{1,4}", given) else 0.0


def clean_message(message: str) -> str:
    """A partner's words as they may be shown: one line of printable text."""
    return " ".join("".join(c if c.isprintable() else " " for c in message).split())


def check_page(url: str, partner: Partner) -> None:
    """Raises PartnerUnclear unless a browser may be sent there: https, or, for a partner that is
    itself on this machine, http to this machine."""
    try:
        parts = urlsplit(url)
        is_whole = bool(parts.hostname) and parts.username is None and parts.port != 0
    except ValueError:
        is_whole = False
    if not is_whole or not re.fullmatch(r"[\x21-\x7e]+", url) or "\\" in url:
        raise PartnerUnclear("the portal's address is none")
    base = urlsplit(partner.base)
    is_here = parts.scheme == base.scheme == "http" and parts.hostname == base.hostname
    if parts.scheme != "https" and not is_here:
        raise PartnerUnclear("the portal's address is not https")
