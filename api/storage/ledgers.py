"""What is kept about changes: prices, grants, keys, audit, idempotency, outbox, positions."""

from datetime import datetime
from typing import Final

from sqlalchemy import (
    CheckConstraint,
    ForeignKey,
    Index,
    LargeBinary,
    String,
    UniqueConstraint,
    text,
)
from sqlalchemy.orm import Mapped, mapped_column

from api.storage.base import ID, NAME, SERIAL, Base, JsonObject, settings_condition
from api.storage.models import of_organization

UNKNOWN_ORGANIZATION: Final = "unknown_organization"
"""The code of a halt of an id that no organization has."""


class Price(Base):
    """A price of a meter from `effective_at` on; without an organization, of the default book."""

    __tablename__ = "prices"
    __table_args__ = (
        CheckConstraint("micro_per_million_units >= 0", name="not_negative"),
        Index("ix_prices_book", "organization_id", "meter", "effective_at"),
    )

    id: Mapped[int] = mapped_column(SERIAL, primary_key=True)
    organization_id: Mapped[str | None] = mapped_column(ID, ForeignKey("organizations.id"))
    meter: Mapped[str] = mapped_column(ID)
    micro_per_million_units: Mapped[int] = mapped_column(SERIAL)
    effective_at: Mapped[datetime]
    created_at: Mapped[datetime]


class Grant(Base):
    """Credits that were granted. What is left of them only the ledger knows."""

    __tablename__ = "grants"
    __table_args__ = (
        CheckConstraint("pool_kind IN ('website', 'group')", name="pool_kind"),
        CheckConstraint("kind IN ('monthly', 'one_time')", name="kind"),
        CheckConstraint("amount_micro > 0", name="amount"),
        CheckConstraint("revoked_micro BETWEEN 0 AND amount_micro", name="revoked"),
        CheckConstraint("kind <> 'monthly' OR expires_at IS NOT NULL", name="monthly_expires"),
        Index(
            "ix_grants_live",
            "organization_id",
            "pool_kind",
            "pool_id",
            "expires_at",
            sqlite_where=text("revoked_micro < amount_micro"),
            postgresql_where=text("revoked_micro < amount_micro"),
        ),
    )

    organization_id: Mapped[str] = mapped_column(
        ID, ForeignKey("organizations.id"), primary_key=True
    )
    id: Mapped[str] = mapped_column(ID, primary_key=True)
    pool_kind: Mapped[str] = mapped_column(String(16))
    pool_id: Mapped[str] = mapped_column(ID)
    kind: Mapped[str] = mapped_column(String(16))
    amount_micro: Mapped[int] = mapped_column(SERIAL)
    revoked_micro: Mapped[int] = mapped_column(SERIAL, default=0)
    source: Mapped[str] = mapped_column(String(512))
    effective_at: Mapped[datetime]
    expires_at: Mapped[datetime | None]
    awaiting_payment: Mapped[bool] = mapped_column(default=False)
    created_at: Mapped[datetime]


class ApiKey(Base):
    """A key or SCIM token: only its hash is kept; `hint` (its last characters) tells them apart."""

    __tablename__ = "api_keys"
    __table_args__ = (
        CheckConstraint(
            "scope IN ('operator', 'admin', 'group_admin', 'finance', 'ingest', 'scim')",
            name="scope",
        ),
        CheckConstraint(
            "CASE scope WHEN 'operator' THEN organization_id IS NULL "
            "WHEN 'ingest' THEN 1 = 1 ELSE organization_id IS NOT NULL END",
            name="bound_as_its_scope_says",
        ),
        CheckConstraint("group_id IS NULL OR scope = 'group_admin'", name="group"),
        of_organization("api_keys", "group_id", "billing_groups"),
        Index("ix_api_keys_organization", "organization_id"),
    )

    id: Mapped[str] = mapped_column(ID, primary_key=True)
    organization_id: Mapped[str | None] = mapped_column(ID, ForeignKey("organizations.id"))
    scope: Mapped[str] = mapped_column(String(16))
    name: Mapped[str] = mapped_column(NAME)
    group_id: Mapped[str | None] = mapped_column(ID)
    """The one group whose admin it is; NULL: of every group of the organization."""
    secret_hash: Mapped[str] = mapped_column(String(64), unique=True)
    hint: Mapped[str] = mapped_column(String(8))
    created_at: Mapped[datetime]
    expires_at: Mapped[datetime]
    revoked_at: Mapped[datetime | None]


class AuditEntry(Base):
    """Who changed what, when, how, from what to what. Written with the change or not at all."""

    __tablename__ = "audit_log"
    __table_args__ = (
        Index("ix_audit_log_organization", "organization_id", "id"),
        Index("ix_audit_log_subject", "organization_id", "subject_kind", "subject_id"),
    )

    id: Mapped[int] = mapped_column(SERIAL, primary_key=True)
    organization_id: Mapped[str | None] = mapped_column(ID)
    at: Mapped[datetime]
    actor: Mapped[str] = mapped_column(ID)
    how: Mapped[str] = mapped_column(String(8))
    action: Mapped[str] = mapped_column(String(64))
    subject_kind: Mapped[str] = mapped_column(String(32))
    subject_id: Mapped[str] = mapped_column(ID)
    before: Mapped[JsonObject | None]
    after: Mapped[JsonObject | None]


class IdempotencyKey(Base):
    """What a POST with this key answered; kept with the change itself, for a day."""

    __tablename__ = "idempotency_keys"
    __table_args__ = (Index("ix_idempotency_keys_created", "created_at"),)

    actor: Mapped[str] = mapped_column(ID, primary_key=True)
    key: Mapped[str] = mapped_column(String(255), primary_key=True)
    organization_id: Mapped[str | None] = mapped_column(ID)
    request_hash: Mapped[str] = mapped_column(String(64))
    status: Mapped[int]
    body: Mapped[bytes] = mapped_column(LargeBinary)
    created_at: Mapped[datetime]


class OutboxFact(Base):
    """A fact on its way to Kafka. Kept for ever: it is what a topic is compared with.

    Within an organization and topic `id` and `version` have the same order, because the
    organization's row is locked while both are taken.
    """

    __tablename__ = "outbox"
    __table_args__ = (
        UniqueConstraint("organization_id", "topic", "version", name="uq_outbox_version"),
        CheckConstraint("topic IN ('memberships', 'credits')", name="topic"),
        Index(
            "ix_outbox_waiting",
            "id",
            sqlite_where=text("published_at IS NULL"),
            postgresql_where=text("published_at IS NULL"),
        ),
        Index(
            "ix_outbox_subject",
            "organization_id",
            "subject",
            sqlite_where=text("subject IS NOT NULL"),
            postgresql_where=text("subject IS NOT NULL"),
        ),
        Index(
            "ix_outbox_settings",
            "organization_id",
            "topic",
            sqlite_where=text(settings_condition("sqlite", "payload")),
            postgresql_where=text(settings_condition("postgresql", "payload")),
        ),
    )

    id: Mapped[int] = mapped_column(SERIAL, primary_key=True)
    organization_id: Mapped[str] = mapped_column(ID, ForeignKey("organizations.id"))
    topic: Mapped[str] = mapped_column(String(16))
    version: Mapped[int] = mapped_column(SERIAL)
    subject: Mapped[str | None] = mapped_column(String(300))
    """What the fact adds a change to (`api.rules.bounds`), to count them by."""
    payload: Mapped[bytes] = mapped_column(LargeBinary)
    created_at: Mapped[datetime]
    published_at: Mapped[datetime | None]


class TopicPosition(Base):
    """How far each partition is known to hold nothing but what this database knows."""

    __tablename__ = "topic_positions"

    topic: Mapped[str] = mapped_column(String(128), primary_key=True)
    partition: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    next_offset: Mapped[int] = mapped_column(SERIAL)


class PublishingHalt(Base):
    """Why nothing of an organization may be published or changed until somebody repaired it.

    Usually empty. An id that is no organization here stands in it too, where a topic has facts of
    it: it concerns nobody, but may not be given to a new one. `first_offset` of the partition is
    where an import must begin to read.
    """

    __tablename__ = "publishing_halts"

    organization_id: Mapped[str] = mapped_column(ID, primary_key=True)
    topic: Mapped[str] = mapped_column(String(16), primary_key=True)
    code: Mapped[str] = mapped_column(String(32))
    message: Mapped[str] = mapped_column(String(1024))
    partition: Mapped[int]
    first_offset: Mapped[int] = mapped_column(SERIAL)
    since: Mapped[datetime]


class DimensionChange(Base):
    """Something whose names ClickHouse must be told. Only the id: what is written is read then."""

    __tablename__ = "dimension_changes"

    id: Mapped[int] = mapped_column(SERIAL, primary_key=True)
    organization_id: Mapped[str] = mapped_column(ID)
    kind: Mapped[str] = mapped_column(String(16))
    entity_id: Mapped[str] = mapped_column(ID)
