"""Reconciliation: everything that a provider changed since the last time, through the same looks.

Webhooks are hints, and hints get lost. Once a night, and by `metering credits reconcile`, each
provider is asked what it changed since the cursor (with overlap); every purchase that this names,
and every one that still waits for something, is looked at and settled. What names nothing here is
made again where the provider's own record of the sale is whole, else put aside as unmatched; what
was put aside once and is well again is taken away. The cursor moves only when all of it was done.
"""

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Final, Protocol

import structlog
from sqlalchemy import func, select
from sqlalchemy.orm import Session

from api.errors import Refused
from api.payments.inbox import UNKNOWN, put_aside
from api.payments.looking import LOOKS_AT_ONCE, Looker, Named, Purchases, Unknown
from api.payments.settling import PurchaseKey
from api.payments.terms import Problem
from api.rules.change import Actor, Control, Transaction
from api.storage.purchases import ProviderCursor, Purchase, Subscription, Unmatched
from api.storage.turns import EVERYBODY

log = structlog.get_logger()

OVERLAP: Final = timedelta(hours=2)
FIRST_TIME: Final = timedelta(days=30)
"""How far back the first reconciliation goes at least (else to the first purchase): further than
events are kept, so that it looks at all."""
UNMATCHED_MAX: Final = 1_000
SAID_MAX: Final = 50


class Changes(Protocol):
    """A provider, as reconciliation asks it. May raise Refused where it does not answer."""

    def since(self, since: datetime, now: datetime) -> AsyncIterator[Named]:
        """What it changed, and which purchases that is about."""
        ...

    def reaches(self, since: datetime, now: datetime) -> bool:
        """Whether `since` tells of every change; else all purchases are looked at."""
        ...

    async def restore(self, unknown: Unknown) -> Named:
        """The purchase made again from the provider's own record, or what was given."""
        ...

    async def is_still_there(self, object_kind: str, object_id: str) -> Named:
        """What an object that was put aside names today."""
        ...


@dataclass
class Report:
    """What was done, in sentences; `unmatched` is what is left for a person to look at."""

    provider: str
    since: datetime
    looked_at: int = 0
    differences: list[str] = field(default_factory=list)
    unmatched: list[str] = field(default_factory=list)
    failures: list[str] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Reconciliation:
    """One provider's. `looker` has that provider; in a rehearsal it and `control` write nothing."""

    control: Control
    looker: Looker
    provider: str
    changes: Changes
    is_rehearsal: bool = False

    async def run(self, since: datetime | None = None) -> Report:
        """Everything since then, or since the cursor. Failures are in the report."""
        begun = self.control.clock()
        from_cursor = await asyncio.to_thread(self._cursor, begun)
        report = Report(self.provider, since or from_cursor)
        keys: dict[PurchaseKey, None] = {}
        unknown: dict[tuple[str, str], Unknown] = {}
        try:
            await self._gather(report, begun, keys, unknown)
        except Refused as refused:
            report.failures.append(f"{self.provider} does not tell what it changed: {refused}")
        await self._look(report, list(keys))
        await asyncio.to_thread(self._write, report, begun, list(unknown.values()))
        return report

    async def _gather(
        self,
        report: Report,
        now: datetime,
        keys: dict[PurchaseKey, None],
        unknown: dict[tuple[str, str], Unknown],
    ) -> None:
        """Fills in which purchases are to be looked at, and what belongs to none."""
        is_all = not self.changes.reaches(report.since, now)
        keys |= dict.fromkeys(await asyncio.to_thread(self._waiting, is_all))
        async for named in self.changes.since(report.since, now):
            await self._take(report, named, keys, unknown)
        for object_kind, object_id in await asyncio.to_thread(self._put_aside):
            if (object_kind, object_id) in unknown:
                continue
            try:
                named = await self.changes.is_still_there(object_kind, object_id)
                await self._take(report, named, keys, unknown)
            except Refused as refused:
                report.failures.append(f"{object_kind} {object_id}: {refused}")

    async def _take(
        self,
        report: Report,
        named: Named,
        keys: dict[PurchaseKey, None],
        unknown: dict[tuple[str, str], Unknown],
    ) -> None:
        if isinstance(named, Unknown) and not self.is_rehearsal:
            former, named = named, await self.changes.restore(named)
            if isinstance(named, Purchases):
                made = ", ".join(key.purchase_id for key in named.keys)
                report.differences.append(f"purchase {made} made again from {former.object_id}")
        if isinstance(named, Purchases):
            keys |= dict.fromkeys(named.keys)
        elif isinstance(named, Unknown):
            unknown[named.object_kind, named.object_id] = named

    async def _look(self, report: Report, keys: list[PurchaseKey]) -> None:
        limit = asyncio.Semaphore(LOOKS_AT_ONCE)

        async def look(key: PurchaseKey) -> None:
            async with limit:
                try:
                    settled = await self.looker.look(key)
                except Exception as error:  # noqa: BLE001 - one purchase is one failure
                    report.failures.append(f"{key.organization_id} {key.purchase_id}: {error}")
                    return
            report.looked_at += 1
            if self.is_rehearsal:
                report.unmatched += map(_sentence, settled.problems)
            report.differences += [
                f"{key.organization_id} {key.purchase_id}: {difference}"
                for difference in settled.differences
            ]

        await asyncio.gather(*map(look, keys))

    def _cursor(self, now: datetime) -> datetime:
        with self.control.store.read() as session:
            cursor = session.get(ProviderCursor, self.provider)
            oldest = session.scalar(
                select(func.min(Purchase.created_at)).where(Purchase.provider == self.provider)
            )
        since = cursor.changed_until if cursor else min(oldest or now, now - FIRST_TIME)
        return since - OVERLAP

    def _waiting(self, is_all: bool) -> list[PurchaseKey]:
        """Purchases whose state may still change, or all of them."""
        query = (
            select(Purchase.organization_id, Purchase.id)
            .outerjoin(
                Subscription,
                (Subscription.organization_id == Purchase.organization_id)
                & (Subscription.purchase_id == Purchase.id),
            )
            .where(Purchase.provider == self.provider)
            .order_by(Purchase.created_at)
        )
        if not is_all:
            is_live = Subscription.purchase_id.is_not(None) & Subscription.ended_at.is_(None)
            query = query.where(Purchase.state.in_(("created", "awaiting_payment")) | is_live)
        with self.control.store.read() as session:
            return [PurchaseKey(*row) for row in session.execute(query)]

    def _put_aside(self) -> list[tuple[str, str]]:
        """What belonged to nothing when it was seen."""
        with self.control.store.read() as session:
            rows = session.execute(
                select(Unmatched.object_kind, Unmatched.object_id)
                .where(Unmatched.provider == self.provider, Unmatched.code == UNKNOWN)
                .limit(UNMATCHED_MAX)
            )
            return [(kind, object_id) for kind, object_id in rows]

    def _write(self, report: Report, begun: datetime, unknown: list[Unknown]) -> None:
        """Puts aside what belongs to nothing, and, where nothing failed, moves the cursor."""
        if self.is_rehearsal:
            report.unmatched = [
                f"{one.object_kind} {one.object_id}: {one.message}" for one in unknown
            ]
            return
        with self.control.store.write() as session:
            now = self.control.clock()
            for one in unknown:
                put_aside(session, self.provider, one, now)
            if not report.failures:
                self._forget(session, {(one.object_kind, one.object_id) for one in unknown})
                cursor = session.get(ProviderCursor, self.provider)
                if cursor is None:
                    cursor = ProviderCursor(provider=self.provider, changed_until=begun)
                    session.add(cursor)
                cursor.changed_until = max(cursor.changed_until, begun)
                cursor.reconciled_at = now
            session.flush()
            rows = session.scalars(
                select(Unmatched)
                .where(Unmatched.provider == self.provider)
                .order_by(Unmatched.since)
                .limit(UNMATCHED_MAX)
            )
            report.unmatched = list(map(_sentence, rows))

    def _forget(self, session: Session, unknown: set[tuple[str, str]]) -> None:
        rows = session.scalars(
            select(Unmatched)
            .where(Unmatched.provider == self.provider, Unmatched.code == UNKNOWN)
            .limit(UNMATCHED_MAX)
        )
        for row in rows:
            if (row.object_kind, row.object_id) not in unknown:
                session.delete(row)


def _sentence(of: Unknown | Unmatched | Problem) -> str:
    return f"{of.object_kind} {of.object_id}: {of.message}"


class _Undo(Exception):
    """Ends a rehearsed transaction."""


@dataclass
class Rehearsal(Control):
    """A control whose every transaction is undone at its end."""

    @contextmanager
    def transaction(self, actor: Actor, whose: str = EVERYBODY) -> Iterator[Transaction]:
        with suppress(_Undo), self.store.write(whose) as session:
            transaction = Transaction(session, actor, self.clock, self.alias_secret)
            yield transaction
            transaction.finish()
            raise _Undo


def rehearsal_of(control: Control) -> Rehearsal:
    """As `control`, and writes nothing."""
    return Rehearsal(control.store, control.clock, control.alias_secret)


def last_due(now: datetime, hour_utc: int) -> datetime:
    """When the nightly run was last due."""
    today = now.replace(hour=hour_utc, minute=0, second=0, microsecond=0)
    return today if today <= now else today - timedelta(days=1)


@dataclass
class Nightly:
    """Runs once a night, and after a start where the last night's was missed."""

    reconciliation: Reconciliation
    hour_utc: int
    _started_at: datetime | None = None

    async def run_if_due(self) -> Report | None:
        reconciliation = self.reconciliation
        now = reconciliation.control.clock()
        self._started_at = self._started_at or now
        done_at = await asyncio.to_thread(self._done_at)
        # Without a cursor nothing can have been missed by much: the first run is at the hour.
        if (done_at or self._started_at) >= last_due(now, self.hour_utc):
            return None
        report = await reconciliation.run()
        for difference in report.differences[:SAID_MAX]:
            log.warning("reconciliation mended a difference", what=difference)
        for failure in report.failures[:SAID_MAX]:
            log.error("reconciliation failed for a purchase", what=failure)
        log.info(
            "payments reconciled",
            provider=report.provider,
            looked_at=report.looked_at,
            differences=len(report.differences),
            unmatched=len(report.unmatched),
            failures=len(report.failures),
        )
        return report

    def _done_at(self) -> datetime | None:
        with self.reconciliation.control.store.read() as session:
            cursor = session.get(ProviderCursor, self.reconciliation.provider)
        return cursor.reconciled_at if cursor else None
