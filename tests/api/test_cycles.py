"""The API's billing cycles are those of the one calendar, over all settings there ever were."""

from datetime import UTC, date, datetime

import pytest
from sqlalchemy import select, text, update

from api.reading.billing_calendar import billing_calendar, cycle_for
from api.rules.change import Control
from api.rules.groups import create_group
from api.rules.organizations import OrganizationSettings, change_settings
from api.storage.ledgers import OutboxFact
from api.storage.store import Store
from schemas.cycles import Cycle
from tests.api.conftest import ADMIN, Clock, new_control


def at(text: str) -> datetime:
    return datetime.fromisoformat(text).replace(tzinfo=UTC)


@pytest.fixture
def changed(store: Store, clock: Clock) -> Control:
    """Three settings, and facts of other kinds between them."""
    clock.now = at("2026-01-10T12:00")
    control = new_control(store, clock)
    for moment, settings in (
        ("2026-03-20T12:00", OrganizationSettings(billing_anchor_day=15)),
        ("2026-06-20T12:00", OrganizationSettings(billing_anchor_day=15, time_zone="Asia/Tokyo")),
    ):
        clock.now = at(moment)
        with control.change("org_a", ADMIN) as change:
            create_group(change, f'"organization_settings" {moment}')
            change_settings(change, None, settings)
    return control


@pytest.mark.parametrize(
    ("day", "start", "end"),
    [
        ("2025-12-31", "2025-12-01T00:00", "2026-01-01T00:00"),
        ("2026-02-15", "2026-02-01T00:00", "2026-03-01T00:00"),
        # Changed on the 20th of March: the cycle that ran then ends on the next 15th.
        ("2026-03-15", "2026-03-01T00:00", "2026-04-15T00:00"),
        ("2026-04-14", "2026-03-01T00:00", "2026-04-15T00:00"),
        ("2026-06-14", "2026-05-15T00:00", "2026-06-15T00:00"),
        # Changed on the 20th of June: it ends at midnight in Tokyo.
        ("2026-06-15", "2026-06-15T00:00", "2026-07-14T15:00"),
        ("2026-07-15", "2026-07-14T15:00", "2026-08-14T15:00"),
    ],
)
def test_a_past_cycle_is_that_of_its_time(
    store: Store, changed: Control, day: str, start: str, end: str
) -> None:
    with store.read() as session:
        cycle = cycle_for(session, "org_a", date.fromisoformat(day), at("2026-07-01T00:00"))
    assert (cycle.start, cycle.end) == (at(start), at(end))


def test_the_current_cycle_runs_on_after_a_change(store: Store, changed: Control) -> None:
    with store.read() as session:
        cycle = cycle_for(session, "org_a", None, at("2026-06-30T00:00"))
    assert cycle == Cycle(at("2026-06-15T00:00"), at("2026-07-14T15:00"), "UTC")


def test_facts_of_others_spelling_are_read_and_the_index_finds_them(
    sqlite_store: Store, clock: Clock
) -> None:
    """An import keeps the bytes of whoever published the fact; an organization may have 40,000."""
    new_control(sqlite_store, clock)
    with sqlite_store.write() as session:
        payload = session.scalar(select(OutboxFact.payload)) or b""
        spaced = payload.replace(b":", b" : ", 2).replace(
            b'"billing_anchor_day":1', b'"billing_anchor_day" : 9'
        )
        session.execute(update(OutboxFact).values(payload=spaced))
    with sqlite_store.read() as session:
        calendar = billing_calendar(session, "org_a")
        assert calendar.cycle_at(clock.now).start == at("2026-11-09T00:00")
        plan = session.execute(
            text(
                "EXPLAIN QUERY PLAN SELECT outbox.payload FROM outbox "
                "WHERE outbox.organization_id = 'org_a' AND outbox.topic = 'memberships' "
                "AND instr(outbox.payload, x'{}') + instr(outbox.payload, x'{}') > 0".format(
                    b'"organization_created"'.hex(), b'"organization_settings"'.hex()
                )
            )
        ).all()
    assert "ix_outbox_settings" in str(plan)
