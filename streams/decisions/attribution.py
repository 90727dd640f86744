"""Whose usage is it? Everything is looked up as of the event's time.

Of several facts the greatest `effective_at <= time` holds, ties by the greatest version. An exact
member id beats an alias. What is not known, not assigned, or in a group that was deleted by then
is Unassigned.
"""

from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from typing import Final, Protocol, TypeVar

from msgspec import Struct

from schemas.records import UNASSIGNED, Group, Span, Timeline
from streams.decisions.state import State, alias_key, group_key, member_key, website_key

BEGINNING: Final = datetime.min.replace(tzinfo=UTC)
END: Final = datetime.max.replace(tzinfo=UTC)

AliasHash = Callable[[str], str]
"""The keyed hash of an alias (`schemas.codec.alias_hash` with its secret bound)."""


class Effective(Protocol):
    """Anything that holds from a time on."""

    @property
    def effective_at(self) -> datetime: ...

    @property
    def version(self) -> int: ...


EffectiveT = TypeVar("EffectiveT", bound=Effective)


class Validity:
    """The half-open time around `at` in which every look-up so far gives the same answer."""

    __slots__ = ("at", "begins", "ends")

    def __init__(self, at: datetime) -> None:
        self.at = at
        self.begins = BEGINNING
        self.ends = END

    def narrow(self, begins: datetime, ends: datetime) -> None:
        self.begins = max(self.begins, begins)
        self.ends = min(self.ends, ends)


class Assignment(Struct, frozen=True):
    """A group as of a time; `version` is the fact that says so, 0 where none does."""

    group_id: str
    version: int
    closing: bool = False
    """The group is to be deleted later, so what holds now may not hold for the next event."""
    funded: bool = False
    """The group has a pool: it is not Unassigned, nor known to be deleted."""


NOBODYS: Final = Assignment(UNASSIGNED, 0)


def as_of(spans: Sequence[EffectiveT], validity: Validity) -> EffectiveT | None:
    """The last of the sorted spans that began by then."""
    ends = END
    for span in reversed(spans):
        if span.effective_at <= validity.at:
            validity.narrow(span.effective_at, ends)
            return span
        ends = span.effective_at
    validity.narrow(BEGINNING, ends)
    return None


def resolve_member(
    organization_id: str, subject: str, state: State, alias_hash: AliasHash, validity: Validity
) -> tuple[str, str]:
    """The member that a subject means, and how it was found: `member`, `alias` or `unknown`.

    An unknown subject is its own member id, so that its usage can be told apart later.
    """
    if state.get(member_key(organization_id, subject)) is not None:
        return subject, "member"
    alias: Timeline | None = state.get(alias_key(organization_id, alias_hash(subject)))
    if alias is not None:
        span = as_of(alias.spans, validity)
        if span is not None and span.value:
            return span.value, "alias"
    return subject, "unknown"


def group_of_member(
    organization_id: str, member_id: str, state: State, validity: Validity
) -> Assignment:
    return _group_of(
        organization_id, state.get(member_key(organization_id, member_id)), state, validity
    )


def group_of_website(
    organization_id: str, website_id: str, state: State, validity: Validity
) -> Assignment:
    return _group_of(
        organization_id, state.get(website_key(organization_id, website_id)), state, validity
    )


def _group_of(
    organization_id: str, timeline: Timeline | None, state: State, validity: Validity
) -> Assignment:
    span: Span | None = as_of(timeline.spans, validity) if timeline is not None else None
    if span is None:
        return NOBODYS
    if span.value == UNASSIGNED:
        return Assignment(UNASSIGNED, span.version)
    group: Group = state.get(group_key(organization_id, span.value)) or _missing(span.value)
    deleted_at = group.deleted_at
    if deleted_at is None:
        return Assignment(span.value, span.version, funded=True)
    if deleted_at <= validity.at:
        validity.narrow(deleted_at, END)
        return Assignment(UNASSIGNED, span.version)
    validity.narrow(BEGINNING, deleted_at)
    return Assignment(span.value, span.version, closing=not group.closed, funded=not group.closed)


def _missing(group_id: str) -> Group:
    raise AssertionError(f"assigned to group {group_id}, which was never created")
