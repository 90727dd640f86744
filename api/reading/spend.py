"""Spend and usage of a period, from ClickHouse, for the API's answers.

Groups are read as stamped, and those that no longer live are Unassigned: what the view `spend` says
too, without its join, and a deletion shows at once. Amounts are integers until the moment they are
shown: micro-credits, and `money_pico` (10^-12 of the currency's unit), which sums without loss.
Cents are shown as fractions, as Cursor does.
"""

from collections import defaultdict
from collections.abc import Callable, Collection, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import date, datetime
from threading import BoundedSemaphore, Lock
from typing import Any, Final, ParamSpec, TypeVar

from clickhouse_connect.driver.exceptions import ClickHouseError
from urllib3.exceptions import HTTPError

from api.errors import Refused, unavailable
from schemas.cycles import Cycle
from schemas.records import UNASSIGNED
from schemas.settings import Settings
from warehouse.connection import WarehouseError, connect

PICO_A_CENT: Final = 10**10
RETRY_S: Final = 5
QUESTIONS_AT_ONCE_MAX: Final = 16
PLACE_WAIT_S: Final = 2.0

P = ParamSpec("P")
T = TypeVar("T")

PERIOD: Final = (
    "organization_id = {organization:String} "
    "AND event_time >= {start:DateTime64(6, 'UTC')} AND event_time < {end:DateTime64(6, 'UTC')}"
)
MONEY: Final = "toString(sum(toInt128(cost_micro) * credit_price_micro))"
AMOUNTS: Final = f"toString(sum(toInt128(cost_micro))), {MONEY}"
ON_DEMAND: Final = "toString(sum(toInt128(overage_micro) * credit_price_micro))"


@dataclass(frozen=True, slots=True)
class Amount:
    """Micro-credits, and the money they cost in 10^-12 of the currency's unit."""

    micro: int = 0
    pico: int = 0

    def __add__(self, other: "Amount") -> "Amount":
        return Amount(self.micro + other.micro, self.pico + other.pico)

    @property
    def cents(self) -> float:
        return cents(self.pico)


def cents(pico: int) -> float:
    """Shown cents: see `quotient`."""
    return quotient(pico, PICO_A_CENT)


def quotient(numerator: int, denominator: int) -> float:
    """A number of an answer: an integer where it is whole, else the nearest float there is.

    Only here, at the end, are amounts floats, because JSON numbers are that to most. Whole ones
    have no `.0`, which clients that count in integers would refuse.
    """
    whole, rest = divmod(numerator, denominator)
    return numerator / denominator if rest else whole


def _busy() -> Refused:
    return unavailable("busy", "Too many questions about usage and spend are asked.", RETRY_S)


@dataclass
class GroupSpend:
    """What one group cost in a period."""

    total: Amount = field(default_factory=Amount)
    by_day: dict[date, Amount] = field(default_factory=dict)


class Spend:
    """Questions to ClickHouse. Each blocks its thread; one client serves all threads.

    Every question raises Refused (503) where ClickHouse does not answer, or too many questions
    wait for it: a ClickHouse that hangs must not take the threads of all other requests.
    """

    def __init__(self, settings: Settings, connector: Callable[[Settings], Any] = connect) -> None:
        self._settings = settings
        self._connector = connector
        self._client: Any = None
        self._lock = Lock()
        self._threads = ThreadPoolExecutor(QUESTIONS_AT_ONCE_MAX, "spend")
        self._places = BoundedSemaphore(QUESTIONS_AT_ONCE_MAX)
        self._soon = BoundedSemaphore(2 * QUESTIONS_AT_ONCE_MAX)

    def soon(self, question: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> Future[T]:
        """Asks one of the questions below in another thread, while this one reads the database."""
        if not self._soon.acquire(timeout=PLACE_WAIT_S):
            raise _busy()
        answer = self._threads.submit(question, *args, **kwargs)
        answer.add_done_callback(lambda _: self._soon.release())
        return answer

    def close(self) -> None:
        self._threads.shutdown()
        if self._client is not None:
            self._client.close()

    def query(self, statement: str, parameters: Mapping[str, Any]) -> list[tuple[Any, ...]]:
        """The rows of one statement. Raises Refused (503)."""
        if not self._places.acquire(timeout=PLACE_WAIT_S):
            raise _busy()
        try:
            with self._lock:
                if self._client is None:
                    self._client = self._connector(self._settings)
            rows = self._client.query(statement, parameters=dict(parameters)).result_rows
        except (ClickHouseError, WarehouseError, HTTPError, OSError) as error:
            raise unavailable(
                "spend_unavailable", "Usage and spend cannot be read just now.", RETRY_S
            ) from error
        finally:
            self._places.release()
        return list(rows)

    def by_group(
        self, organization_id: str, cycle: Cycle, live: Collection[str]
    ) -> dict[str, Amount]:
        """Spend by group as reports show it. What is not among the `live` groups is Unassigned:
        so a deletion shows here at once, before ClickHouse has been told."""
        rows = self.query(
            f"SELECT stamped_group_id, {AMOUNTS} FROM usage_rated WHERE {PERIOD} "  # noqa: S608
            "GROUP BY stamped_group_id",
            period(organization_id, cycle),
        )
        amounts: dict[str, Amount] = defaultdict(Amount)
        for group, micro, pico in rows:
            amounts[_place(group, live)] += Amount(int(micro), int(pico))
        return amounts

    def by_group_and_day(
        self, organization_id: str, cycle: Cycle, live: Collection[str]
    ) -> dict[str, GroupSpend]:
        """As `by_group`, with the days of the cycle's calendar."""
        rows = self.query(
            f"SELECT stamped_group_id, toDate(event_time, {{zone:String}}) AS day, {AMOUNTS} "  # noqa: S608
            f"FROM usage_rated WHERE {PERIOD} GROUP BY stamped_group_id, day ORDER BY day",
            {**period(organization_id, cycle), "zone": cycle.time_zone},
        )
        by_group: dict[str, GroupSpend] = defaultdict(GroupSpend)
        for group, day, micro, pico in rows:
            spent, amount = by_group[_place(group, live)], Amount(int(micro), int(pico))
            spent.by_day[day] = spent.by_day.get(day, Amount()) + amount
            spent.total += amount
        return by_group

    def by_group_and_member(
        self, organization_id: str, cycle: Cycle, live: Collection[str]
    ) -> dict[str, dict[str, int]]:
        """The money of each group's members, as `money_pico`. Bare numbers, since there may be
        20,000 of them."""
        rows = self.query(
            f"SELECT stamped_group_id, member_id, {MONEY} FROM usage_rated WHERE {PERIOD} "  # noqa: S608
            "GROUP BY stamped_group_id, member_id",
            period(organization_id, cycle),
        )
        by_group: dict[str, dict[str, int]] = defaultdict(dict)
        for group, member_id, pico in rows:
            people = by_group[group if group in live else UNASSIGNED]
            people[member_id] = people.get(member_id, 0) + int(pico)
        return by_group

    def by_member_and_day(
        self,
        organization_id: str,
        cycle: Cycle,
        live: Collection[str],
        group_id: str,
    ) -> dict[str, dict[date, Amount]]:
        """The spend of one group's members, or of all that is Unassigned."""
        groups = sorted(live) if group_id == UNASSIGNED else [group_id]
        condition = "NOT IN" if group_id == UNASSIGNED else "IN"
        rows = self.query(
            f"SELECT member_id, toDate(event_time, {{zone:String}}) AS day, {AMOUNTS} "  # noqa: S608
            f"FROM usage_rated WHERE {PERIOD} "
            f"AND stamped_group_id {condition} {{groups:Array(String)}} "
            "GROUP BY member_id, day ORDER BY day",
            {**period(organization_id, cycle), "zone": cycle.time_zone, "groups": groups},
        )
        by_member: dict[str, dict[date, Amount]] = defaultdict(dict)
        for member_id, day, micro, pico in rows:
            by_member[member_id][day] = Amount(int(micro), int(pico))
        return by_member

    def by_member(self, organization_id: str, cycle: Cycle) -> dict[str, tuple[int, int]]:
        """Of each member: what no credits covered, and everything; both as `money_pico`."""
        rows = self.query(
            f"SELECT member_id, {ON_DEMAND}, {MONEY} "  # noqa: S608
            f"FROM usage_rated WHERE {PERIOD} GROUP BY member_id",
            period(organization_id, cycle),
        )
        return {row[0]: (int(row[1]), int(row[2])) for row in rows}


def _place(group_id: str, live: Collection[str]) -> str:
    return group_id if group_id in live else UNASSIGNED


def period(organization_id: str, cycle: Cycle) -> dict[str, Any]:
    """The parameters of `PERIOD`."""
    return {
        "organization": organization_id,
        "start": _stamp(cycle.start),
        "end": _stamp(cycle.end),
    }


def _stamp(moment: datetime) -> str:
    return f"{moment:%Y-%m-%d %H:%M:%S.%f}"
