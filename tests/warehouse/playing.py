"""Scenarios of credits and usage through the worker's decisions, and into ClickHouse."""

from datetime import datetime
from typing import Any

from schemas import records
from schemas.records import Pool
from tests.decisions.test_credits import fact_from
from tests.decisions.worker import T0, Worker, instant, worker_with_credits
from tests.warehouse.conftest import Put


class Playing:
    """A worker to which a scenario happens, and what it wrote."""

    def __init__(self) -> None:
        self.worker: Worker = worker_with_credits()
        self.facts: list[records.FactApplied] = []
        self._events = 0

    def play(self, scenario: str) -> None:
        """Lines: a credit fact as in `test_credits`, `use 30`, `at web_3 use 30`, `wait +2h`,
        `delete a`; `+30h grant …` takes effect then."""
        for line in filter(None, map(str.strip, scenario.splitlines())):
            match line.split():
                case ["use", quantity]:
                    self._use(int(quantity), "")
                case ["at", website_id, "use", quantity]:
                    self._use(int(quantity), website_id)
                case ["wait", time]:
                    self.worker.now += instant(time) - T0
                    self.worker.tick()
                case ["delete", group_id]:
                    self._publish(records.GroupDeleted(group_id))
                case [time, *words] if time.startswith("+"):
                    self._publish(fact_from(" ".join(words)), instant(time))
                case _:
                    self._publish(fact_from(line))

    def _publish(self, fact: Any, effective_at: datetime | None = None) -> None:
        outcome = self.worker.publish(fact, effective_at)
        assert outcome.applied is not None, outcome
        self.facts.append(outcome.applied)

    def _use(self, quantity: int, website_id: str) -> None:
        self._events += 1
        data: dict[str, Any] = {"quantity": quantity}
        if website_id:
            data["website_id"] = website_id
        row = self.worker.send(f"evt_{self._events}", time=self.worker.now, data=data)
        assert isinstance(row, records.RatedEvent)

    @property
    def pools(self) -> dict[tuple[str, str, str], Pool]:
        return {
            (key[1], key[2], key[3]): pool
            for key, pool in self.worker.state.values.items()
            if key[0] == "pool"
        }

    def put_into(self, put: Put) -> None:
        """As the sink would: and everything once more, as it sends what nobody acknowledged."""
        for _ in range(2):
            put("usage_rated_rows", self.worker.rated)
            put("ledger_rows", self.worker.postings)
            put("facts_applied_rows", self.facts)
