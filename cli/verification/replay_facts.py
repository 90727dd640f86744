"""Facts and the clock's ticks in the order in which the pipeline took them, against the model."""

from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Final

import msgspec

from cli.verification.books import Movement, Organization
from cli.verification.differences import Differences
from cli.verification.fact_reading import read_fact
from cli.verification.fact_rules import close_group
from cli.verification.model import Applied, DeadLetter, Model
from cli.verification.outputs import EPOCH, Outputs
from cli.verification.topic_contents import Contents
from schemas import topics
from schemas.codec import decode_state, decode_state_key
from schemas.reasons import Reason
from schemas.records import FactApplied, Pool, Posting, RatedEvent

TICK_SLACK: Final = timedelta(seconds=10)
"""How late the clock's work may be done: an interval, and a restart in its middle."""
APPEND_SLACK: Final = timedelta(milliseconds=2)
"""Append times are whole milliseconds, cut off."""
NAMES: Final = ("member_id", "group_id", "website_id", "grant_id", "how")
Leg = tuple[str, str, str, str, str, int]
"""Entry, account, pool kind, pool id, grant id, amount."""


@dataclass
class _Step:
    """A fact, or a tick of the clock, and when it was decided."""

    at: datetime
    topic: str
    record: Any
    postings: list[Posting]


class FactReplay:
    """Takes the steps up to a time; the caller asks for each usage record that has an outcome."""

    def __init__(
        self,
        model: Model,
        contents: Contents,
        outputs: Outputs,
        differences: Differences,
        counts: Counter[str],
    ) -> None:
        self._model = model
        self._contents = contents
        self._outputs = outputs
        self._differences = differences
        self._counts = counts
        steps = [*self._steps(topics.MEMBERSHIPS), *self._steps(topics.CREDITS)]
        steps += [_Step(now, "", None, postings) for now, postings in outputs.ticks]
        # The sort is stable, so steps of one transaction stay in the order of their offsets.
        self._waiting = sorted(steps, key=lambda step: step.at)[::-1]
        self._earliest_waiting = self._earliest()

    def advance(self, until: datetime, appended_ms: int) -> None:
        """All that was decided before; then nothing may wait that was in the topics earlier."""
        while self._waiting and self._waiting[-1].at < until:
            self._take()
        if self._earliest_waiting[len(self._waiting)] < appended_ms:
            self._differences.note_wrong(
                f"partition {self._contents.partition}: usage appended at {appended_ms} ms was "
                "decided before a fact that had been appended earlier"
            )

    def finish(self, settled_at: datetime) -> None:
        """What is left; then the final balances, and whether the clock did all that was due."""
        while self._waiting:
            self._take()
        for movement in self._model.tick(settled_at - TICK_SLACK):
            self._differences.note_lost(
                f"partition {self._contents.partition}: {movement} was due by the clock"
            )
        for at, postings in self._outputs.postings.items():
            self._differences.note_duplicated(f"{len(postings)} postings of {at} are not due")
        self._compare_balances()

    def deleted(self) -> Iterator[tuple[str, str]]:
        for name, organization in self._model.organizations.items():
            for kind, group_id in organization.facts_about:
                if kind == "deletion":
                    yield name, group_id

    def note_closing(self, row: RatedEvent) -> None:
        """An announced deletion comes into force by the clock, and where the pool is empty no
        posting tells when: an event that is not funded by its group does."""
        organization = self._model.organizations.get(row.organization_id)
        if organization is None or row.funding_group_id:
            return
        group_id = row.stamped_group_id
        settings = organization.settings(row.event_time)
        if settings["funding_group"] == "website" and row.website_id:
            group_id, _ = organization.group("website", row.website_id, row.event_time)
        if _may_have_closed(organization, group_id, row.recorded_at):
            close_group(organization, group_id)

    def check_lapses(self, row: RatedEvent, appended_ms: int) -> None:
        """No credits may have lapsed that usage could still have paid with when it came: the clock
        waits for all that was in the topics when it struck."""
        organization = self._model.organizations.get(row.organization_id)
        appended_at = EPOCH + timedelta(milliseconds=appended_ms) + APPEND_SLACK
        pools = (("website", row.website_id), ("group", row.funding_group_id))
        grants = [grant for at in pools if organization for grant in organization.by_pool[at]]
        for grant in grants:
            if not grant.lapsed_micro or not grant.eligible(row.event_time):
                continue
            assert grant.expires_at is not None, "only what expires lapses"
            if appended_at < grant.expires_at + self._model.late_grace:
                self._differences.note_wrong(
                    f"grant {grant.grant_id!r} of {row.organization_id!r} lapsed before event "
                    f"{row.event_id!r} was decided, which had come in time for it"
                )

    def compare_refusal(self, topic: str, record: Any, reason: Reason) -> None:
        """The record must be in `dead-letters`, unchanged, with this reason."""
        where = f"{topic}[{self._contents.partition}] at {record.offset}"
        actual = self._outputs.refused.pop((topic, record.offset), None)
        if actual is None:
            self._differences.note_lost(f"{where} is not dead-lettered as {reason}")
            return
        if actual.reason != reason:
            self._differences.note_wrong(f"{where} is refused as {actual.reason}, not {reason}")
        same = (actual.key, actual.value or None, actual.headers)
        if same != (record.key, record.value or None, list(record.headers)):
            self._differences.note_wrong(f"{where}: the dead letter has not the bytes it came with")

    def _steps(self, topic: str) -> Iterator[_Step]:
        """A repetition has no outcome: it counts as decided with the fact before it."""
        at = EPOCH
        for record in self._contents.records[topic]:
            row = self._outputs.applied.get((topic, record.offset))
            refusal = self._outputs.refused.get((topic, record.offset))
            if row is not None:
                at = max(at, row.applied_at)
            elif refusal is not None:
                at = max(at, refusal.decided_before)
            yield _Step(at, topic, record, [])

    def _earliest(self) -> list[int]:
        """By how many steps wait: the earliest append time of the facts among them, in ms."""
        earliest = [2**62]
        for step in self._waiting:
            appended_ms = step.record.timestamp if step.record is not None else 2**62
            earliest.append(min(earliest[-1], appended_ms))
        return earliest

    def _take(self) -> None:
        step = self._waiting.pop()
        if step.record is None:
            self._tick(step)
        else:
            self._fact(step)

    def _tick(self, step: _Step) -> None:
        posted = {(posting.organization_id, posting.entry_id) for posting in step.postings}
        self._model.tick(step.at, posted)
        due = self._take_movements()
        self._compare_legs(due, step.postings, f"the clock at {step.at.isoformat()}")

    def _fact(self, step: _Step) -> None:
        record, topic = step.record, step.topic
        self._counts[topic] += 1
        row = self._outputs.applied.pop((topic, record.offset), None)
        if topic == topics.CREDITS and row is None:
            self._note_closing_for_credits(step)
        if topic == topics.CREDITS and row is not None:
            self._note_closing_for_revocation(row)
        now = row.applied_at if row is not None else step.at
        due = self._model.fact(topic, record.value, record.key, now)
        movements = self._take_movements()
        where = f"{topic}[{self._contents.partition}] at {record.offset}"
        if isinstance(due, DeadLetter):
            self._counts["dead_letters"] += 1
            self.compare_refusal(topic, record, due.reason)
        if not isinstance(due, Applied) or due.repeated:
            if row is not None:
                self._differences.note_duplicated(f"{where} is applied, but {due} is due")
            return
        if row is None:
            self._differences.note_lost(f"{where} is not applied")
            return
        self._compare_applied(row, record, where)
        at = (f"{topic} {row.organization_id}", row.version)
        self._compare_legs(movements, self._outputs.postings.pop(at, []), where)

    def _note_closing_for_credits(self, step: _Step) -> None:
        """As `note_closing`: credits that are refused only because their group is closed."""
        refusal = self._outputs.refused.get((topics.CREDITS, step.record.offset))
        if refusal is None or refusal.reason != Reason.GROUP_DELETED:
            return
        fact = read_fact(topics.CREDITS, step.record.value, step.record.key)
        organization = self._model.organizations[fact.organization_id]
        group_id = fact["pool_id"]
        deleted_at = organization.deleted_at(group_id)
        is_told_by_time = deleted_at is not None and deleted_at <= fact.effective_at
        if not is_told_by_time and _may_have_closed(organization, group_id, step.at):
            close_group(organization, group_id)

    def _note_closing_for_revocation(self, row: FactApplied) -> None:
        """As `note_closing`: a revocation that no pool owes."""
        at = (f"{topics.CREDITS} {row.organization_id}", row.version)
        for posting in self._outputs.postings.get(at, []):
            organization = self._model.organizations[row.organization_id]
            if posting.account == "uncollected" and _may_have_closed(
                organization, posting.pool_id, row.applied_at
            ):
                close_group(organization, posting.pool_id)

    def _compare_applied(self, row: FactApplied, record: Any, where: str) -> None:
        payload = msgspec.json.decode(record.value)
        fact = payload["fact"]
        due = {
            "organization_id": payload["organization_id"],
            "version": payload["version"],
            "type": fact["type"],
            **{name: fact[name] for name in NAMES if name in fact},
        }
        if fact.get("pool_kind"):
            due[f"{fact['pool_kind']}_id"] = fact["pool_id"]
        for name, value in due.items():
            if getattr(row, name) != value:
                self._differences.note_wrong(
                    f"{where}: applied with {name} {getattr(row, name)!r}, but {value!r} was said"
                )

    def _take_movements(self) -> dict[str, list[Movement]]:
        """Movements of facts and the clock since the last call, by organization."""
        movements = {}
        for name, organization in self._model.organizations.items():
            # Debits are in the rated rows; a long list would only be carried along.
            others = [each for each in organization.movements if each.entry_id != "usage"]
            if others:
                movements[name] = others
            organization.movements.clear()
        return movements

    def _compare_legs(
        self, due: dict[str, list[Movement]], postings: Iterable[Posting], where: str
    ) -> None:
        postings = list(postings)
        expected = Counter(
            (name, _leg_of_movement(each)) for name, movements in due.items() for each in movements
        )
        actual = Counter((each.organization_id, _leg_of_posting(each)) for each in postings)
        for (name, leg), _ in (expected - actual).items():
            self._differences.note_lost(f"{where}: posting {leg} of {name!r}")
        for (name, leg), _ in (actual - expected).items():
            self._differences.note_duplicated(f"{where}: posting {leg} of {name!r} is not due")
        last = {(each.organization_id, each.pool_kind, each.pool_id): each for each in postings}
        for (name, kind, pool_id), posting in last.items():
            organization = self._model.organizations.get(name)
            balance = organization.balance((kind, pool_id)) if organization else None
            if posting.balance_after_micro != balance:
                self._differences.note_wrong(
                    f"{where}: {posting.entry_id} of {name!r} says {posting.balance_after_micro} "
                    f"is left, but {balance} is"
                )

    def _compare_balances(self) -> None:
        last: dict[bytes, bytes | None] = {}
        for record in self._contents.records[topics.BALANCES]:
            last[record.key] = record.value
        actual: dict[tuple[str, str, str], Pool] = {}
        for raw_key, raw in last.items():
            key = decode_state_key(raw_key)
            if key[0] != "pool":
                self._differences.note_wrong(f"balances has the key {raw_key!r}")
            elif raw is not None:
                actual[key[1], key[2], key[3]] = decode_state("pool", raw)
        for name, organization in self._model.organizations.items():
            for kind, pool_id in list(organization.by_pool):
                pool = actual.pop((name, kind, pool_id), None) or Pool()
                self._compare_pool(name, (kind, pool_id), pool)
        for at, pool in actual.items():
            self._differences.note_wrong(f"pool {at} is in balances with {pool.balance_micro}")

    def _compare_pool(self, name: str, at: tuple[str, str], pool: Pool) -> None:
        organization = self._model.organizations[name]
        left = {each.grant_id: each.left_micro for each in organization.by_pool[at]}
        due = {grant_id: amount for grant_id, amount in left.items() if amount}
        actual = {grant.grant_id: grant.remaining_micro for grant in pool.grants}
        if actual != due:
            self._differences.note_wrong(f"pool {at} of {name!r} has {actual}, but {due} is due")
        if (pool.debt_micro, pool.balance_micro) != (
            organization.debt[at],
            organization.balance(at),
        ):
            self._differences.note_wrong(
                f"pool {at} of {name!r} owes {pool.debt_micro} and stands at {pool.balance_micro}, "
                f"but {organization.debt[at]} and {organization.balance(at)} are due"
            )


def _may_have_closed(organization: Organization, group_id: str, by: datetime) -> bool:
    """Whether the deletion was due by then and its closing would have moved nothing."""
    deleted_at = organization.deleted_at(group_id)
    pool = ("group", group_id)
    is_empty = not organization.debt[pool] and not any(
        grant.left_micro for grant in organization.by_pool[pool]
    )
    return deleted_at is not None and deleted_at <= by and is_empty


def _leg_of_movement(each: Movement) -> Leg:
    return (each.entry_id, each.account, *each.pool, each.grant_id, each.amount_micro)


def _leg_of_posting(each: Posting) -> Leg:
    return (
        each.entry_id,
        each.account,
        each.pool_kind,
        each.pool_id,
        each.grant_id,
        each.amount_micro,
    )
