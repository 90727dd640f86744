"""What the pipeline can keep of one subject (`schemas/bounds.py`), refused here before the worker
would have to. Every fact is kept in the outbox with its subject, and counted there by an index.

Nothing is asked of an organization that has had no more facts than the smallest bound. What was
spent of a grant only the worker knows: here each counts until it is revoked or expired.
"""

from collections import Counter
from collections.abc import Iterable, Sequence
from datetime import datetime, timedelta
from typing import Any, Final

from sqlalchemy import func, or_, select
from sqlalchemy.orm import Session

from api.errors import Refused, conflict
from api.storage.ledgers import Grant, OutboxFact, Price
from api.storage.models import Organization
from schemas.bounds import CHANGES_MAX, POOL_GRANTS_MAX, REMOVALS_SPARE
from schemas.reasons import Reason
from schemas.records import (
    Adjusted,
    CreditFact,
    Granted,
    MemberAlias,
    MemberAssigned,
    MemberRemoved,
    MembershipFact,
    OrganizationCreated,
    OrganizationSettings,
    PriceSet,
    WebsiteAssigned,
)

SUBJECTS_A_STATEMENT: Final = 1_000
EXPIRED_GRANTS_COUNT_FOR: Final = timedelta(days=36)
"""The worker keeps an expired grant for the late grace, at most 35 days, and while it is away."""

Fact = MembershipFact | CreditFact


def subject_of(fact: Fact) -> str | None:
    """What a fact adds a change to, as `OutboxFact.subject` has it; None where nothing grows."""
    match fact:
        case OrganizationCreated() | OrganizationSettings():
            return "settings"
        case MemberAssigned() | MemberRemoved():
            return f"member:{fact.member_id}"
        case MemberAlias():
            return f"alias:{fact.alias_hash}"
        case WebsiteAssigned():
            return f"website:{fact.website_id}"
        case PriceSet():
            return f"{fact.book}_price:{fact.meter}"
        case Adjusted() if fact.amount_micro > 0:
            return f"adjustment:{fact.pool_kind}:{fact.pool_id}"
    return None


def may_be_too_many(fact: Fact, version: int) -> bool:
    """Whether a bound could be reached at all with the fact of this version."""
    bound = POOL_GRANTS_MAX if isinstance(fact, CreditFact) else CHANGES_MAX
    return version > bound


def refuse_too_many(
    session: Session, organization_id: str, facts: Sequence[Fact], now: datetime
) -> None:
    """Raises Refused (409) where one of the facts is beyond a bound. They are an organization's
    latest, in their order, and are in the outbox by now."""
    changes = [fact for fact in facts if not isinstance(fact, CreditFact)]
    counts = _counts(session, organization_id, map(subject_of, changes))
    after = Counter[str | None]()
    for fact in reversed(changes):
        subject = subject_of(fact)
        removes = isinstance(fact, MemberRemoved) or (
            isinstance(fact, MemberAlias) and fact.removed
        )
        limit = CHANGES_MAX + REMOVALS_SPARE if removes else CHANGES_MAX
        if counts.get(subject, 0) - after[subject] > limit:
            raise _too_many_changes(fact)
        after[subject] += 1
    pools = {
        (fact.pool_kind, fact.pool_id): None
        for fact in facts
        if isinstance(fact, Granted) or (isinstance(fact, Adjusted) and fact.amount_micro > 0)
    }
    for pool_kind, pool_id in pools:
        if _grants(session, organization_id, pool_kind, pool_id, now) > POOL_GRANTS_MAX:
            raise _too_many_grants(pool_kind, pool_id)


def changes_left(session: Session, organization_id: str) -> dict[str, int]:
    """Of the members that hardly can be moved any more, how many times they still can."""
    version = select(Organization.memberships_version).where(Organization.id == organization_id)
    if (session.scalar(version) or 0) < CHANGES_MAX - 1:
        return {}
    rows = session.execute(
        select(OutboxFact.subject, func.count())
        .where(
            OutboxFact.organization_id == organization_id, OutboxFact.subject.startswith("member:")
        )
        .group_by(OutboxFact.subject)
        .having(func.count() >= CHANGES_MAX - 1)
    )
    return {
        str(subject).removeprefix("member:"): max(0, CHANGES_MAX - number)
        for subject, number in rows
    }


def refuse_too_many_default_prices(session: Session, meter: str) -> None:
    """Raises Refused (409) where the default book has as many prices of the meter as it can."""
    prices = select(Price.id).where(Price.organization_id.is_(None), Price.meter == meter)
    if _at_most(session, prices, CHANGES_MAX) >= CHANGES_MAX:
        raise _too_many_changes(PriceSet(meter, 0, "default"))


def _counts(
    session: Session, organization_id: str, subjects: Iterable[str | None]
) -> dict[str | None, int]:
    names = sorted({subject for subject in subjects if subject is not None})
    counts: dict[str | None, int] = {}
    for start in range(0, len(names), SUBJECTS_A_STATEMENT):
        rows = session.execute(
            select(OutboxFact.subject, func.count())
            .where(
                OutboxFact.organization_id == organization_id,
                OutboxFact.subject.in_(names[start : start + SUBJECTS_A_STATEMENT]),
            )
            .group_by(OutboxFact.subject)
        )
        counts.update((subject, number) for subject, number in rows)
    return counts


def _grants(
    session: Session, organization_id: str, pool_kind: str, pool_id: str, now: datetime
) -> int:
    """How many grants the pool may have at most, counted to one beyond its bound."""
    given = select(Grant.id).where(
        Grant.organization_id == organization_id,
        Grant.pool_kind == pool_kind,
        Grant.pool_id == pool_id,
        Grant.revoked_micro < Grant.amount_micro,
        or_(Grant.expires_at.is_(None), Grant.expires_at > now - EXPIRED_GRANTS_COUNT_FOR),
    )
    adjusted = select(OutboxFact.id).where(
        OutboxFact.organization_id == organization_id,
        OutboxFact.subject == f"adjustment:{pool_kind}:{pool_id}",
    )
    return sum(_at_most(session, rows, POOL_GRANTS_MAX + 1) for rows in (given, adjusted))


def _at_most(session: Session, rows: Any, limit: int) -> int:
    """The number of rows, of which no more than so many are looked at."""
    return session.scalar(select(func.count()).select_from(rows.limit(limit).subquery())) or 0


def _too_many_grants(pool_kind: str, pool_id: str) -> Refused:
    return conflict(
        Reason.TOO_MANY_GRANTS.value,
        f"The {pool_kind} pool {pool_id!r} has {POOL_GRANTS_MAX} grants that are neither revoked "
        "nor long expired, as many as a pool can have.",
        "pool_id",
        "Give fewer and larger grants, or such as expire; revoke those that nobody needs.",
    )


def _too_many_changes(fact: Fact) -> Refused:
    match fact:
        case MemberAssigned() | MemberRemoved():
            what, where = f"The group of member {fact.member_id!r}", "member_id"
            to_do = "Remove the member and create a new one."
        case MemberAlias():
            what, where = f"One of the aliases of member {fact.member_id!r}", "alias"
            to_do = "Leave the alias where it is."
        case WebsiteAssigned():
            what, where = f"The group of website {fact.website_id!r}", "website_id"
            to_do = "Create a new website."
        case PriceSet():
            what, where = f"The {fact.book} price of meter {fact.meter!r}", "meter"
            to_do = "Use a new meter."
        case _:
            what, where, to_do = "The settings of the organization", "", "Leave them as they are."
    return conflict(
        Reason.TOO_MANY_CHANGES.value,
        f"{what} has changed {CHANGES_MAX} times, as often as is kept.",
        where,
        f"{to_do} Find out what changes it so often.",
    )
