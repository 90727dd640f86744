"""A change to one organization: the lock, the versions, and what is recorded with it."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any, Final

from sqlalchemy import insert, select
from sqlalchemy.orm import Session

from api.clock import Clock
from api.errors import not_found, unavailable
from api.rules.bounds import Fact, may_be_too_many, refuse_too_many, subject_of
from api.storage.bulk import insert_rows
from api.storage.ledgers import AuditEntry, DimensionChange, OutboxFact, PublishingHalt
from api.storage.models import Organization
from api.storage.store import Store
from api.storage.turns import EVERYBODY
from schemas import codec, topics
from schemas.records import (
    AssignedBy,
    CreditFact,
    CreditRecord,
    MembershipFact,
    MembershipRecord,
)

TICK: Final = timedelta(microseconds=1)
HALTED_RETRY_S: Final = 60


@dataclass(frozen=True, slots=True)
class Actor:
    """Who changes something (`key:…`, `cli:…`), and by which of the four ways."""

    id: str
    how: AssignedBy


def audit_entry(
    organization_id: str | None,
    actor: Actor,
    at: datetime,
    action: str,
    subject: tuple[str, str],
    before: dict[str, Any] | None,
    after: dict[str, Any] | None,
) -> dict[str, Any]:
    """A row of the audit log; without an organization it belongs to the platform."""
    return {
        "organization_id": organization_id,
        "at": at,
        "actor": actor.id,
        "how": actor.how,
        "action": action,
        "subject_kind": subject[0],
        "subject_id": subject[1],
        "before": before,
        "after": after,
    }


@dataclass
class Change:
    """One organization, locked until the transaction ends.

    `now` grows strictly from change to change of an organization even where the clock does not,
    so that later facts have later `effective_at`.
    """

    session: Session
    organization: Organization
    actor: Actor
    now: datetime
    alias_secret: bytes
    _facts: list[dict[str, Any]] = field(default_factory=list)
    _countable: list[Fact] = field(default_factory=list)
    """Facts with which a bound may be reached."""
    _audit: list[dict[str, Any]] = field(default_factory=list)
    _dimensions: dict[tuple[str, str], None] = field(default_factory=dict)

    @property
    def organization_id(self) -> str:
        return self.organization.id

    def membership_fact(self, fact: MembershipFact, effective_at: datetime | None = None) -> None:
        """A fact for the topic `memberships`, with the next version."""
        self.organization.memberships_version += 1
        record = MembershipRecord(
            self.organization_id,
            self.organization.memberships_version,
            self.now,
            effective_at or self.now,
            fact,
        )
        self._add_fact(topics.MEMBERSHIPS, record)

    def credit_fact(self, fact: CreditFact, effective_at: datetime | None = None) -> int:
        """A fact for the topic `credits`, with the next version, which is returned."""
        self.organization.credits_version += 1
        version = self.organization.credits_version
        record = CreditRecord(
            self.organization_id, version, self.now, effective_at or self.now, fact
        )
        self._add_fact(topics.CREDITS, record)
        return version

    def _add_fact(self, topic: str, record: MembershipRecord | CreditRecord) -> None:
        self._facts.append(
            {
                "organization_id": record.organization_id,
                "topic": topic,
                "version": record.version,
                "subject": subject_of(record.fact),
                "payload": codec.encode(record),
                "created_at": self.now,
            }
        )
        if may_be_too_many(record.fact, record.version):
            self._countable.append(record.fact)

    def audit(
        self,
        action: str,
        subject: tuple[str, str],
        before: dict[str, Any] | None,
        after: dict[str, Any] | None,
    ) -> None:
        """Who did what to `subject` (kind and id), from `before` to `after`."""
        entry = audit_entry(
            self.organization_id, self.actor, self.now, action, subject, before, after
        )
        self._audit.append(entry)

    def dimension(self, kind: str, entity_id: str) -> None:
        """ClickHouse is to be told the names of this `organization`, `member`, `group`, …"""
        self._dimensions[kind, entity_id] = None

    def finish(self) -> None:
        """Writes down what was recorded, in the transaction of the change itself.

        Raises Refused (409) where the pipeline could not keep so many changes of something.
        """
        if self._facts or self._audit or self._dimensions:
            self.organization.updated_at = self.now
        self.session.flush()
        insert_rows(self.session, OutboxFact, self._facts)
        refuse_too_many(self.session, self.organization_id, self._countable, self.now)
        insert_rows(self.session, AuditEntry, self._audit)
        dimensions = [
            {"organization_id": self.organization_id, "kind": kind, "entity_id": entity_id}
            for kind, entity_id in self._dimensions
        ]
        insert_rows(self.session, DimensionChange, dimensions)
        self._facts, self._countable, self._audit, self._dimensions = [], [], [], {}


@dataclass
class Transaction:
    """A transaction that may touch several organizations: lock them in the order of their ids."""

    session: Session
    actor: Actor
    clock: Clock
    alias_secret: bytes
    _changes: dict[str, Change] = field(default_factory=dict)

    def change(self, organization_id: str, *, while_halted: bool = False) -> Change:
        """Locks the organization: all of its changes happen one after the other.

        Raises Refused (404) where there is none, and (503) while publishing is halted for it: a
        version given now would be taken. `while_halted` is for what makes no facts.
        """
        if organization_id in self._changes:
            return self._changes[organization_id]
        organization = self.session.scalar(
            select(Organization).where(Organization.id == organization_id).with_for_update()
        )
        if organization is None:
            raise not_found("organization", organization_id, "organization_id")
        if not while_halted:
            refuse_while_halted(self.session, organization_id)
        return self.adopt(organization, max(self.clock(), organization.updated_at + TICK))

    def adopt(self, organization: Organization, now: datetime) -> Change:
        """A change to an organization that this transaction has just made itself."""
        change = Change(self.session, organization, self.actor, now, self.alias_secret)
        self._changes[organization.id] = change
        return change

    def audit(
        self,
        action: str,
        subject: tuple[str, str],
        before: dict[str, Any] | None,
        after: dict[str, Any] | None,
    ) -> None:
        """As `Change.audit`, for what belongs to no organization."""
        entry = audit_entry(None, self.actor, self.clock(), action, subject, before, after)
        self.session.execute(insert(AuditEntry), [entry])

    def finish(self) -> None:
        for change in self._changes.values():
            change.finish()


def refuse_while_halted(session: Session, organization_id: str) -> None:
    """Raises Refused (503) where a topic and the database contradict each other about this one."""
    halt = session.scalar(
        select(PublishingHalt)
        .where(PublishingHalt.organization_id == organization_id)
        .order_by(PublishingHalt.topic)
        .limit(1)
    )
    if halt is not None:
        raise unavailable(halt.code, halt.message, HALTED_RETRY_S)


@dataclass
class Control:
    """What every way of changing something shares: database, clock, secret, and who to wake.

    `committed` is called after each commit, from whatever thread.
    """

    store: Store
    clock: Clock
    alias_secret: bytes
    committed: Callable[[], None] = lambda: None

    @contextmanager
    def transaction(self, actor: Actor, whose: str = EVERYBODY) -> Iterator[Transaction]:
        """Commits at the end of the block; an exception undoes all of it. `whose` names the
        organization, where it is one: what changes the others need not wait for it.

        Raises Refused (503) where the turn to write does not come within seconds.
        """
        with self.store.write(whose) as session:
            transaction = Transaction(session, actor, self.clock, self.alias_secret)
            yield transaction
            transaction.finish()
        self.committed()

    @contextmanager
    def change(self, organization_id: str, actor: Actor) -> Iterator[Change]:
        """A transaction that changes one organization."""
        with self.transaction(actor, organization_id) as transaction:
            yield transaction.change(organization_id)
