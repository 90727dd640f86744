"""Micro benchmark of the pure work: microseconds an event, by stage. `python -m bench.decisions`.

A seeded workload in the common shape; before it prints, it checks that the balances are what the
rows say.
"""

import argparse
import random
import time
from datetime import UTC, datetime, timedelta

import msgspec

from schemas import codec, records, topics
from streams.decisions.events import Limits
from streams.decisions.facts import FactInput, decide_fact
from streams.decisions.intake import Intake
from streams.decisions.known import UsageContext
from streams.decisions.state import MemoryState, apply_changes
from streams.decisions.usage import apply_rated, decide_usage

START = datetime(2026, 11, 1, tzinfo=UTC)
GRANT_MICRO = 10**12
BATCH = 4_000
STAGES = ("parse and digests", "decide and apply", "encode")


def publish(state: MemoryState, topic: str, records_of_topic: list[msgspec.Struct]) -> None:
    """Applies facts as the worker does."""
    for offset, record in enumerate(records_of_topic):
        organization_id = record.organization_id  # type: ignore[attr-defined]
        fact_input = FactInput(
            topic, 0, offset, organization_id.encode(), codec.encode(record), START, 0
        )
        outcome = decide_fact(fact_input, state)
        assert outcome.applied is not None, outcome.rejected
        apply_changes(state, outcome.changes)


def set_up(organizations: int, members: int) -> MemoryState:
    """Organizations with ten groups, some websites, a price, and credits in every pool."""
    state = MemoryState()
    for number in range(organizations):
        organization_id = f"org_{number}"
        facts: list[records.MembershipFact] = [records.OrganizationCreated()]
        facts += [records.GroupCreated(f"group_{n}") for n in range(10)]
        facts += [
            records.MemberAssigned(f"user_{n}", f"group_{n % 10}", "scim") for n in range(members)
        ]
        facts += [records.WebsiteAssigned(f"web_{n}", f"group_{n}") for n in range(5)]
        facts += [records.PriceSet("ai.tokens", 1_000_000, "default")]
        publish(
            state,
            topics.MEMBERSHIPS,
            [
                records.MembershipRecord(organization_id, version, START, START, fact)
                for version, fact in enumerate(facts, 1)
            ],
        )
        pools = [("group", f"group_{n}") for n in range(10)]
        pools += [("website", f"web_{n}") for n in range(2)]
        publish(
            state,
            topics.CREDITS,
            [
                records.CreditRecord(
                    organization_id,
                    version,
                    START,
                    START,
                    records.Granted(f"grant_{pool}", kind, pool, "one_time", GRANT_MICRO, "x"),  # type: ignore[arg-type]
                )
                for version, (kind, pool) in enumerate(pools, 1)
            ],
        )
    return state


def workload(count: int, organizations: int, members: int) -> list[tuple[bytes, bytes]]:
    """Keys and values of seeded events."""
    chance = random.Random(7)  # noqa: S311 - a workload, not a secret
    produced = []
    for number in range(count):
        organization_id = f"org_{chance.randrange(organizations)}"
        at = START + timedelta(milliseconds=number)
        event = {
            "specversion": "1.0",
            "id": f"evt_{number:08x}",
            "source": f"editor/eu-{chance.randrange(4)}",
            "type": "ai.tokens",
            "time": at,
            "subject": f"user_{chance.randrange(members)}",
            "organizationid": organization_id,
            "data": {
                "quantity": chance.randrange(1, 5000),
                "website_id": f"web_{chance.randrange(5)}",
                "dimensions": {"model": chance.choice(["large", "small"])},
            },
        }
        produced.append((organization_id.encode(), codec.encode(event)))
    return produced


def run(count: int, organizations: int, members: int) -> dict[str, float]:
    """One pass over a fresh state, in batches as the worker has them; µs an event by stage."""
    state = set_up(organizations, members)
    produced = workload(count, organizations, members)
    intake = Intake(Limits())
    context = UsageContext(topics.USAGE, 0, lambda alias: codec.alias_hash(b"secret", alias), START)
    appended_at = START + timedelta(milliseconds=count)
    encode = codec.reusing_encoder()
    debited_micro = 0
    spent = dict.fromkeys(STAGES, 0.0)
    clock = time.process_time
    for first in range(0, count, BATCH):
        batch = produced[first : first + BATCH]
        began = clock()
        events = [intake.parse(value, key, (), appended_at) for key, value in batch]
        parsed = clock()
        rated: list[records.RatedEvent] = []
        for offset, event in enumerate(events, first):
            row = decide_usage(event, offset, state, context)  # type: ignore[arg-type]
            apply_rated(row, state)  # type: ignore[arg-type]
            rated.append(row)  # type: ignore[arg-type]
        decided = clock()
        lines = [encode(row) for row in rated]
        encoded = clock()
        assert len(lines) == len(batch)
        for stage, seconds in zip(
            STAGES, (parsed - began, decided - parsed, encoded - decided), strict=True
        ):
            spent[stage] += seconds / count * 1e6
        debited_micro += sum(row.website_debit_micro + row.group_debit_micro for row in rated)
    check(state, debited_micro)
    return spent


def check(state: MemoryState, debited_micro: int) -> None:
    """Every credit that was granted is in a pool or in a row."""
    pools = [value for key, value in state.values.items() if key[0] == "pool"]
    left_micro = sum(pool.balance_micro for pool in pools)
    assert left_micro + debited_micro == GRANT_MICRO * len(pools)
    assert debited_micro > 0


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--events", type=int, default=100_000)
    parser.add_argument("--organizations", type=int, default=20)
    parser.add_argument("--members", type=int, default=200)
    parser.add_argument("--passes", type=int, default=3)
    chosen = parser.parse_args()
    passes = [
        run(chosen.events, chosen.organizations, chosen.members) for _ in range(chosen.passes)
    ]
    best = min(passes, key=lambda spent: sum(spent.values()))
    for name, microseconds in best.items():
        print(f"{name:20} {microseconds:6.2f} µs an event")
    print(f"{'all':20} {sum(best.values()):6.2f} µs an event")


if __name__ == "__main__":
    main()
