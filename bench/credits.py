"""`python -m bench.credits`: how quickly it is known what is left of an organization's credits.

An organization with `--events` rated events over three months, each paid by a website and a group,
beside two others of half its size, in blocks as the sink writes them. Asked are the figures of one
group, of one website, those of the whole organization, and the view `pool_balances` by grant.
Checked first: what all grants paid is what the events cost, and figures are `used + remaining`.
"""

import argparse
import json
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

from bench.api import figures
from deploy.embedded import EmbeddedClickHouse
from schemas.settings import Settings
from warehouse.balances import list_grants, organization_figures, pool_figures
from warehouse.connection import connect
from warehouse.migrations import migrate

ORGANIZATION: Final = "org_bench"
GROUPS: Final = 20
WEBSITES: Final = 200
BLOCK_ROWS: Final = 20_000
ISSUED_MICRO: Final = 10**15
WEBSITE_MICRO: Final = 1_000
GROUP_MICRO: Final = 2_000
BEGIN: Final = "toDateTime64('2026-09-01', 6, 'UTC')"
NOW: Final = datetime(2026, 11, 20, tzinfo=UTC)

_EVENTS: Final = f"""
INSERT INTO usage_rated_rows
    (organization_id, source, event_id, revision, event_time, meter, subject, member_id,
    website_id, stamped_group_id, funding_group_id, quantity_micro, cost_micro,
    website_debit_micro, group_debit_micro, overage_micro, allocations, credit_price_micro,
    currency, recorded_at)
SELECT
    {{organization:String}}, 'editor/eu-1', concat('evt_', toString(generateUUIDv4())), 0,
    {BEGIN} + toIntervalMicrosecond(number * {{step:UInt64}}), 'ai.tokens', 'user', 'user',
    concat('web_', toString(number % {WEBSITES})), concat('group_', toString(number % {GROUPS})),
    concat('group_', toString(number % {GROUPS})), 1000000, {WEBSITE_MICRO + GROUP_MICRO},
    {WEBSITE_MICRO}, {GROUP_MICRO}, 0,
    [
        ('website', concat('grant_web_', toString(number % {WEBSITES})), {WEBSITE_MICRO}),
        ('group', concat('grant_group_', toString(number % {GROUPS})), {GROUP_MICRO})
    ],
    10000, 'USD', now64(6)
FROM numbers({{first:UInt64}}, {{rows:UInt64}})
"""  # noqa: S608 - constants
_LEDGER: Final = f"""
INSERT INTO ledger_rows
    (organization_id, entry_id, leg, kind, account, pool_kind, pool_id, grant_id, amount_micro,
    effective_at, recorded_at)
SELECT
    {{organization:String}}, concat('grant:', grant_id), leg.1, 'grant', leg.2, pool.1, pool.2,
    concat('grant_', pool.2) AS grant_id, leg.3, {BEGIN}, {BEGIN}
FROM
(
    SELECT arrayJoin(arrayConcat(
        arrayMap(n -> ('website', concat('web_', toString(n))), range({WEBSITES})),
        arrayMap(n -> ('group', concat('group_', toString(n))), range({GROUPS}))
    )) AS pool
)
ARRAY JOIN [(0, 'available', {ISSUED_MICRO}), (1, 'issued', -{ISSUED_MICRO})] AS leg
"""  # noqa: S608 - constants
_FACTS: Final = f"""
INSERT INTO facts_applied_rows
    (organization_id, topic, version, type, effective_at, recorded_at, applied_at, group_id,
    website_id, grant_id, fact)
SELECT
    organization_id, 'credits', rowNumberInAllBlocks() + 1, 'granted', {BEGIN}, {BEGIN}, {BEGIN},
    if(pool_kind = 'group', pool_id, ''), if(pool_kind = 'website', pool_id, ''), grant_id,
    '{{"kind":"one_time","source":"admin:bench"}}'
FROM ledger_rows WHERE organization_id = {{organization:String}} AND leg = 0
"""  # noqa: S608 - constants


def fill(client: Any, events: int) -> None:
    """Rows of all tables, of three organizations."""
    for name, rows in (("org_a", events // 2), (ORGANIZATION, events), ("org_z", events // 2)):
        step = 80 * 86_400 * 10**6 // max(rows, 1)
        for first in range(0, rows, BLOCK_ROWS):
            many = min(BLOCK_ROWS, rows - first)
            parameters = {"organization": name, "first": first, "rows": many, "step": step}
            client.command(_EVENTS, parameters=parameters)
        client.command(_LEDGER, parameters={"organization": name})
        client.command(_FACTS, parameters={"organization": name})


def measure(settings: Settings, events: int, questions: int) -> dict[str, float]:
    """Milliseconds of each kind of question. Raises AssertionError where an answer is wrong."""
    client = connect(settings)

    def query(statement: str, parameters: Mapping[str, Any]) -> Any:
        return client.query(statement, parameters=dict(parameters)).result_rows

    try:
        fill(client, events)
        _check(query, events)
        asked: dict[str, Callable[[], Any]] = {
            "group": lambda: pool_figures(query, ORGANIZATION, "group", "group_7", NOW),
            "website": lambda: pool_figures(query, ORGANIZATION, "website", "web_7", NOW),
            "organization": lambda: organization_figures(query, ORGANIZATION, NOW),
            "by_grant": lambda: list_grants(query, ORGANIZATION),
        }
        results: dict[str, float] = {}
        for name, ask in asked.items():
            times_ms = []
            for _ in range(questions):
                begun = time.perf_counter()
                ask()
                times_ms.append((time.perf_counter() - begun) * 1000)
            results |= figures(name, times_ms)
        return results
    finally:
        client.close()


def _check(query: Any, events: int) -> None:
    grants = list_grants(query, ORGANIZATION)
    used_micro = sum(grant.used_micro for grant in grants)
    assert len(grants) == GROUPS + WEBSITES, len(grants)
    assert used_micro == events * (WEBSITE_MICRO + GROUP_MICRO), used_micro
    whole = organization_figures(query, ORGANIZATION, NOW)
    assert whole.one_time.used_micro == used_micro, whole
    assert whole.one_time.total_micro == len(grants) * ISSUED_MICRO, whole


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="bench.credits", description=__doc__)
    parser.add_argument("--events", type=int, default=1_000_000)
    parser.add_argument("--questions", type=int, default=20, help="of each kind")
    chosen = parser.parse_args(argv)
    with tempfile.TemporaryDirectory(prefix="metering-bench-credits-") as name:
        engine = EmbeddedClickHouse(Path(name))
        engine.start()
        try:
            settings = Settings(
                data_dir=Path(name),
                clickhouse_url=engine.url,
                clickhouse_user=engine.writer.name,
                clickhouse_password=engine.writer.password,
            )
            migrate(settings)
            results = measure(settings, chosen.events, chosen.questions)
        finally:
            engine.stop()
    print(json.dumps({"events": chosen.events, **results}))
    return 0


if __name__ == "__main__":
    sys.exit(main())
