"""What is kept of webhooks, and what becomes of those that fail."""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

from sqlalchemy import select

from api.errors import unavailable
from api.payments.inbox import BODIES_KEPT, Chore, Hint, Inbox, drop_bodies
from api.payments.looking import Asked, Looker, Named, NotOurs, Unknown
from api.payments.seen import Seen
from api.payments.terms import Options
from api.rules.change import Control
from api.storage.lock import PAYMENTS, PUBLISHING, work_lock
from api.storage.purchases import ProviderEvent, Unmatched
from tests.api.conftest import Clock


@dataclass
class Scripted:
    """A provider that says what the test tells it to."""

    says: Callable[[ProviderEvent], Named]
    asked: list[str] = field(default_factory=list)

    async def named_by(self, event: ProviderEvent) -> Named:
        self.asked.append(event.id)
        return self.says(event)

    async def look(self, asked: Asked) -> Seen:
        raise AssertionError("nothing is looked at here")


def hint(event_id: str = "evt_1") -> Hint:
    at = datetime(2026, 11, 10, tzinfo=UTC)
    return Hint("stripe", event_id, "invoice.paid", "invoice", "in_1", b'{"a":1}', at)


def inbox_of(control: Control, says: Callable[[ProviderEvent], Named]) -> tuple[Inbox, Scripted]:
    provider = Scripted(says)
    return Inbox(control, Looker(control, {"stripe": provider}, Options())), provider


def ignored(event: ProviderEvent) -> Named:
    return NotOurs("of another product")


def row(control: Control, event_id: str = "evt_1") -> ProviderEvent:
    with control.store.read() as session:
        return session.get_one(ProviderEvent, ("stripe", event_id))


def test_a_webhook_is_kept_once(control: Control) -> None:
    inbox, _ = inbox_of(control, ignored)
    assert [inbox.store(hint()) for _ in range(3)] == [True, False, False]
    assert row(control).body == b'{"a":1}'


def test_what_was_worked_off_stays_so(control: Control) -> None:
    inbox, provider = inbox_of(control, ignored)
    inbox.store(hint())
    asyncio.run(inbox.work_off())
    assert not inbox.store(hint())
    asyncio.run(inbox.work_off())
    assert provider.asked == ["evt_1"]
    assert row(control).problem == "ignored: of another product"


def test_a_failure_waits_longer_each_time_and_is_forgotten_when_it_is_over(
    control: Control, clock: Clock
) -> None:
    is_away = True

    def says(event: ProviderEvent) -> Named:
        if is_away:
            raise unavailable("stripe_unavailable", "Stripe does not answer.", 1)
        return NotOurs("well")

    inbox, _ = inbox_of(control, says)
    inbox.store(hint())
    waits = []
    for _ in range(12):
        asyncio.run(inbox.work_off())
        waited = row(control).next_attempt_at - clock()
        waits.append(waited.total_seconds())
        clock.forward(seconds=waited.total_seconds())
    assert waits == [2, 4, 8, 16, 32, 64, 128, 256, 512, 600, 600, 600]
    assert row(control).problem == "stripe_unavailable: Stripe does not answer."
    is_away = False
    asyncio.run(inbox.work_off())
    assert row(control).processed_at == clock()


def test_one_that_cannot_be_read_holds_up_no_other(control: Control) -> None:
    def says(event: ProviderEvent) -> Named:
        if event.id == "evt_1":
            raise KeyError("sk_" + "test_secret")
        return NotOurs("well")

    inbox, _ = inbox_of(control, says)
    inbox.store(hint())
    inbox.store(hint("evt_2"))
    asyncio.run(inbox.work_off())
    assert row(control).attempts == 1
    assert "secret" not in row(control).problem
    assert row(control, "evt_2").processed_at is not None


def test_what_is_unknown_is_put_aside_until_it_is_known(control: Control) -> None:
    inbox, provider = inbox_of(control, lambda event: Unknown("invoice", "in_1", "Whose?"))
    inbox.store(hint())
    asyncio.run(inbox.work_off())
    with control.store.read() as session:
        assert [each.object_id for each in session.scalars(select(Unmatched))] == ["in_1"]
    provider.says = ignored
    assert row(control).problem == "Whose?"


def test_bodies_are_kept_for_thirty_days(control: Control, clock: Clock) -> None:
    inbox, _ = inbox_of(control, ignored)
    inbox.store(hint())
    clock.forward(days=1)
    inbox.store(hint("evt_2"))
    assert drop_bodies(control.store, clock() + BODIES_KEPT) == 1
    assert (row(control).body, row(control, "evt_2").body) == (b"", b'{"a":1}')
    assert drop_bodies(control.store, clock() + BODIES_KEPT) == 0


def test_one_process_at_a_time_works_and_another_takes_over(control: Control) -> None:
    first, second = (inbox_of(control, ignored) for _ in range(2))

    async def run() -> None:
        other_work = work_lock(control.store, PUBLISHING)
        assert await asyncio.to_thread(other_work.take)
        await first[0].start()
        await _until(lambda: not _is_free(control))
        await second[0].start()
        first[0].store(hint())
        await _until(lambda: "evt_1" in first[1].asked)
        await first[0].stop()
        second[0].store(hint("evt_2"))
        # What was listed just before it was done may be asked about once more.
        await _until(lambda: "evt_2" in second[1].asked)
        await second[0].stop()
        other_work.release()

    asyncio.run(run())
    assert (set(first[1].asked), "evt_1" in second[1].asked) == ({"evt_1"}, False)
    assert _is_free(control)


def test_chores_are_done_every_so_often_and_one_that_fails_is_done_again(
    sqlite_control: Control, clock: Clock
) -> None:
    done = []

    async def fails() -> None:
        done.append(clock())
        raise RuntimeError("of the test")

    async def run() -> None:
        inbox, _ = inbox_of(sqlite_control, ignored)
        inbox.chores = [Chore("test", timedelta(minutes=1), fails)]
        await inbox.start()
        for count in (1, 2):
            await _until(lambda count=count: len(done) == count)  # type: ignore[misc]
            clock.forward(minutes=1)
            inbox.wake()
        await inbox.stop()

    asyncio.run(run())


def _is_free(control: Control) -> bool:
    lock = work_lock(control.store, PAYMENTS)
    is_free = lock.take()
    lock.release()
    return is_free


async def _until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(60):
        while not await asyncio.to_thread(condition):  # noqa: ASYNC110 - nobody here can tell
            await asyncio.sleep(0.02)
