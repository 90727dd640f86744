"""Stored webhooks and due looks, worked off: one task, in one API process at a time.

A webhook is stored and answered before anything is done (`store`); then the task is woken, finds
out which purchases it is about, looks at them, and marks it done. What fails is tried again, ever
more slowly and without an end: the attempt is in the row, so that a restart forgets nothing.
Purchases are also looked at when their `look_at` comes. When the process ends, another takes over.
Idle, the task costs two questions to an index each second.
"""

import asyncio
from collections.abc import Awaitable, Callable, Coroutine
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from functools import partial
from typing import Any, Final, TypeVar

import structlog
from sqlalchemy import delete, select, update
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.orm import Session

from api.errors import Refused, unavailable
from api.payments import metrics
from api.payments.looking import Looker, Named, NotOurs, Purchases, Unknown
from api.payments.settling import PurchaseKey
from api.payments.stripe.errors import redacted
from api.rules.change import Control
from api.storage.lock import PAYMENTS, WorkLock, work_lock
from api.storage.purchases import ProviderEvent, Purchase, Unmatched
from api.storage.store import Store

log = structlog.get_logger()
Result = TypeVar("Result")

LOOK_S: Final = 1.0
"""How long an event that another process stored waits at most before it is seen."""
JOBS_MAX: Final = 32
WRITES_AT_ONCE: Final = 2
KEEPING_MAX: Final = 256
"""Webhooks in memory whose signature was right."""
BUSY_RETRY_S: Final = 1
FIRST_WAIT: Final = timedelta(seconds=2)
LONGEST_WAIT: Final = timedelta(minutes=10)
LOCK_RETRY_S: Final = 0.5
PROBLEM_CHARACTERS_MAX: Final = 512
SAY_FROM_ATTEMPT: Final = 3
BODIES_KEPT: Final = timedelta(days=30)
BODIES_A_TIME: Final = 1_000
UNKNOWN: Final = "unknown_here"
"""The code of what says that it is ours and belongs to nothing."""


@dataclass(frozen=True, slots=True)
class Hint:
    """A webhook whose signature was right."""

    provider: str
    id: str
    type: str
    object_kind: str
    object_id: str
    body: bytes
    created_at: datetime


@dataclass
class Chore:
    """What is also to be done, by the process that works off the inbox, every so often."""

    name: str
    every: timedelta
    work: Callable[[], Awaitable[object]]
    done_at: datetime | None = None


@dataclass
class Inbox:
    """Works while it runs; `wake` may be called from any thread."""

    control: Control
    looker: Looker
    chores: list[Chore] = field(default_factory=list)
    loop: asyncio.AbstractEventLoop | None = None
    _keeping: int = 0
    _writes: asyncio.Semaphore = field(default_factory=lambda: asyncio.Semaphore(WRITES_AT_ONCE))
    _signal: asyncio.Event = field(default_factory=asyncio.Event)
    _task: asyncio.Task[None] | None = None
    _jobs: dict[object, asyncio.Task[None]] = field(default_factory=dict)

    @property
    def is_busy(self) -> bool:
        """Whether something is being worked off."""
        return bool(self._jobs)

    async def start(self) -> None:
        self.loop = asyncio.get_running_loop()
        self._task = asyncio.create_task(self._run())

    async def stop(self) -> None:
        tasks = [*filter(None, [self._task]), *self._jobs.values()]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await self.looker.stop()

    def wake(self) -> None:
        """There may be something to do."""
        if self.loop is not None and not self.loop.is_closed():
            self.loop.call_soon_threadsafe(self._signal.set)

    async def keep(self, hint: Hint) -> bool:
        """As `store`, for routes: a burst waits here, where waiting takes no turn to write from
        anybody (there are few, and one too many is refused at once)."""
        if self._keeping >= KEEPING_MAX:
            raise unavailable("busy", "Too many webhooks wait to be kept.", BUSY_RETRY_S)
        self._keeping += 1
        try:
            async with self._writes:
                return await asyncio.to_thread(self.store, hint)
        finally:
            self._keeping -= 1

    def store(self, hint: Hint) -> bool:
        """Keeps a webhook, once; whether it was new. Raises Refused (503) where the database is
        away or busy: the provider sends it again."""
        with self.control.store.write() as session:
            is_new = stored(
                session, hint, self.control.clock(), is_sqlite=self.control.store.is_sqlite
            )
        self.wake()
        return is_new

    async def work_off(self) -> None:
        """Everything that is due now, and what comes of it; for commands and tests. Failures are
        left for later."""
        while self._jobs or await self._begin_due():
            await asyncio.wait(set(self._jobs.values()))

    async def _run(self) -> None:
        lock = work_lock(self.control.store, PAYMENTS)
        try:
            while True:
                self._signal.clear()
                try:
                    await self._take(lock)
                    await self._begin_due()
                    self._begin_chores()
                except Refused as refused:
                    log.warning("payments wait for the database", what=str(refused))
                except Exception as error:  # noqa: BLE001 - nobody else would go on with it
                    log.error("payments were not looked through", error=_said(error))
                # Not by `wait_for`: before Python 3.12 it may lose a cancellation.
                with suppress(TimeoutError):
                    async with asyncio.timeout(LOOK_S):
                        await self._signal.wait()
        finally:
            lock.release()

    async def _take(self, lock: WorkLock) -> None:
        while not await _whole(asyncio.to_thread(lock.take)):  # noqa: ASYNC110 - nobody can tell
            await asyncio.sleep(LOCK_RETRY_S)

    async def _begin_due(self) -> bool:
        """Starts what is due and has no job yet; whether there was any."""
        room = JOBS_MAX - len(self._jobs)
        if room <= 0:
            return False
        events, purchases = await asyncio.to_thread(self._due)
        begun = False
        for event in events:
            begun |= self._begin(("event", event.provider, event.id), self._work_off(event))
        for key in purchases:
            begun |= self._begin(("purchase", key), self._look(key))
        return begun

    def _begin_chores(self) -> None:
        now = self.control.clock()
        for chore in self.chores:
            is_due = chore.done_at is None or not chore.done_at <= now < chore.done_at + chore.every
            if is_due and self._begin(("chore", chore.name), _do(chore)):
                chore.done_at = now

    def _begin(self, name: object, work: Coroutine[Any, Any, None]) -> bool:
        """One job of a name; room is kept by what is asked for."""
        if name in self._jobs or len(self._jobs) >= JOBS_MAX:
            work.close()
            return False
        task = asyncio.create_task(work)
        self._jobs[name] = task
        task.add_done_callback(lambda _: self._ended(name))
        return True

    def _ended(self, name: object) -> None:
        self._jobs.pop(name, None)
        self._signal.set()

    def _due(self) -> tuple[list[ProviderEvent], list[PurchaseKey]]:
        now = self.control.clock()
        providers = list(self.looker.providers)
        with self.control.store.read() as session:
            events = session.scalars(
                select(ProviderEvent)
                .where(
                    ProviderEvent.processed_at.is_(None),
                    ProviderEvent.next_attempt_at <= now,
                    ProviderEvent.provider.in_(providers),
                )
                .order_by(ProviderEvent.next_attempt_at)
                .limit(2 * JOBS_MAX)
            ).all()
            purchases = session.execute(
                select(Purchase.organization_id, Purchase.id)
                .where(Purchase.look_at <= now, Purchase.provider.in_(providers))
                .order_by(Purchase.look_at)
                .limit(2 * JOBS_MAX)
            ).all()
        return list(events), [PurchaseKey(*row) for row in purchases]

    async def _work_off(self, event: ProviderEvent) -> None:
        """One stored webhook. Whatever goes wrong is written into its row."""
        try:
            named = await self.looker.providers[event.provider].named_by(event)
            if isinstance(named, Purchases):
                await asyncio.gather(*map(self.looker.look, named.keys))
        except Exception as error:  # noqa: BLE001 - one webhook ends at worst as its own failure
            await self._failed(error, partial(_put_off_event, event, _said(error)))
            return
        await self._write(partial(_done, event, named))
        waited = self.control.clock() - event.received_at
        metrics.DELAY.labels(_kind(event.provider)).observe(max(0.0, waited.total_seconds()))

    async def _look(self, key: PurchaseKey) -> None:
        """A purchase whose time has come; settling says when the next time is."""
        try:
            await self.looker.look(key)
        except Exception as error:  # noqa: BLE001 - as above
            await self._failed(error, partial(_put_off_purchase, key))

    async def _failed(self, error: Exception, put_off: Callable[[datetime, Session], int]) -> None:
        metrics.FAILED.inc()
        attempts = await self._write(put_off)
        if not isinstance(error, Refused):
            log.error("a look at a payment failed", error=_said(error), attempts=attempts)
        elif attempts is not None and attempts >= SAY_FROM_ATTEMPT:
            log.warning("payments are looked at again", what=_said(error), attempts=attempts)

    async def _write(self, work: Callable[[datetime, Session], Result]) -> Result | None:
        """None where the database does not take it: the row is then due as before."""

        def write() -> Result:
            with self.control.store.write() as session:
                return work(self.control.clock(), session)

        try:
            async with self._writes:
                return await asyncio.to_thread(write)
        except Refused as refused:
            log.warning("payments wait for the database", what=str(refused))
            # What is still due would otherwise be begun again at once, and again.
            await asyncio.sleep(LOOK_S)
            return None


async def _whole(work: Coroutine[Any, Any, Result]) -> Result:
    """Waits for its end also when cancelled: a thread that takes a lock after it was released would
    keep it from everybody."""
    task = asyncio.create_task(work)
    try:
        return await asyncio.shield(task)
    except asyncio.CancelledError:
        await asyncio.wait([task])
        raise


async def _do(chore: Chore) -> None:
    try:
        await chore.work()
    except Exception as error:  # noqa: BLE001 - it is tried again, and the inbox goes on
        metrics.FAILED.inc()
        log.error("a chore of payments failed", chore=chore.name, error=_said(error))


def _done(event: ProviderEvent, named: Named, now: datetime, session: Session) -> None:
    row = session.get_one(ProviderEvent, (event.provider, event.id))
    row.processed_at, row.problem = now, ""
    match named:
        case NotOurs():
            row.problem = f"ignored: {named.why}"[:PROBLEM_CHARACTERS_MAX]
        case Unknown():
            row.problem = named.message[:PROBLEM_CHARACTERS_MAX]
            put_aside(session, event.provider, named, now)
        case Purchases():
            # It may have been unknown once.
            session.execute(
                delete(Unmatched).where(
                    Unmatched.provider == event.provider,
                    Unmatched.object_kind == event.object_kind,
                    Unmatched.object_id == event.object_id,
                    Unmatched.code == UNKNOWN,
                )
            )


def stored(session: Session, hint: Hint, now: datetime, *, is_sqlite: bool) -> bool:
    """Writes a webhook down unless it is there; whether it was new."""
    insert = sqlite.insert if is_sqlite else postgresql.insert
    written = session.execute(
        insert(ProviderEvent)
        .values(
            provider=hint.provider,
            id=hint.id,
            type=hint.type,
            object_kind=hint.object_kind,
            object_id=hint.object_id,
            body=hint.body,
            created_at=hint.created_at,
            received_at=now,
            attempts=0,
            next_attempt_at=now,
            problem="",
        )
        .on_conflict_do_nothing()
        .returning(ProviderEvent.id)
    )
    return written.first() is not None


def put_aside(session: Session, provider: str, unknown: Unknown, now: datetime) -> None:
    """A row for a person to look at, once."""
    identity = (provider, unknown.object_kind, unknown.object_id)
    if session.get(Unmatched, identity) is None:
        session.add(
            Unmatched(
                provider=provider,
                object_kind=unknown.object_kind,
                object_id=unknown.object_id,
                code=UNKNOWN,
                message=unknown.message[:1024],
                organization_id=unknown.organization_id,
                since=now,
            )
        )
        log.error("a payment fits nothing here", object=unknown.object_id, what=unknown.message)


def drop_bodies(store: Store, now: datetime) -> int:
    """Forgets what old webhooks said, at most `BODIES_A_TIME` of them; how many it were."""
    with store.write() as session:
        old = session.execute(
            select(ProviderEvent.provider, ProviderEvent.id)
            .where(ProviderEvent.received_at < now - BODIES_KEPT, ProviderEvent.body != b"")
            .order_by(ProviderEvent.received_at)
            .limit(BODIES_A_TIME)
        ).all()
        for provider, event_id in old:
            session.execute(
                update(ProviderEvent)
                .where(ProviderEvent.provider == provider, ProviderEvent.id == event_id)
                .values(body=b"")
            )
    return len(old)


def _put_off_event(event: ProviderEvent, said: str, now: datetime, session: Session) -> int:
    row = session.get_one(ProviderEvent, (event.provider, event.id))
    row.attempts += 1
    row.next_attempt_at = now + _wait(row.attempts)
    row.problem = said
    return row.attempts


def _put_off_purchase(key: PurchaseKey, now: datetime, session: Session) -> int:
    row = session.get_one(Purchase, (key.organization_id, key.purchase_id))
    row.looks_failed += 1
    row.look_at = now + _wait(row.looks_failed)
    return row.looks_failed


def _wait(attempts: int) -> timedelta:
    """Doubles from try to try, up to `LONGEST_WAIT`."""
    return min(LONGEST_WAIT, FIRST_WAIT * (1 << min(attempts - 1, 20)))


def _said(error: Exception) -> str:
    said = str(error) if isinstance(error, Refused) else f"{type(error).__name__}: {error}"
    return redacted(said)[:PROBLEM_CHARACTERS_MAX]


def _kind(provider: str) -> str:
    return provider.partition(":")[0]
