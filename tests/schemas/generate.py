"""Writes what is derived: JSON Schemas, examples of the outputs, snapshots of the inputs' examples.

`python -m tests.schemas.generate`; a test says when they are stale, and the difference is for a
person to read: it is a change of the contract.
"""

import json
from pathlib import Path
from typing import Any

import msgspec

from schemas import partners, records
from schemas.reasons import Reason
from tests.schemas.examples import EXAMPLES, INPUT_TOPICS, examples, run

SCHEMAS = EXAMPLES.parent / "json_schema"
SNAPSHOTS = Path(__file__).parent / "snapshots"
DIALECT = "https://json-schema.org/draft/2020-12/schema"

GENERATED: dict[str, Any] = {
    "memberships": records.MembershipRecord,
    "credits": records.CreditRecord,
    "usage-rated": records.RatedEvent,
    "ledger": records.Posting,
    "facts-applied": records.FactApplied,
    "balances": records.Pool,
}
"""Schemas made from the structs. `usage` is written by hand, since CloudEvents say more than a
struct; of `dead-letters` only the reasons are filled in. The other changelogs are internal."""

OUTPUT_EXAMPLES = {
    "usage-rated": ["usage/good/plain", "usage/good/website-and-dimensions", "usage/odd/replay"],
    "balances": ["usage/good/plain"],
    "ledger": [
        "credits/good/granted-one-time",
        "credits/good/revoked",
        "credits/good/adjusted-down",
        "credits/odd/grant-into-debt",
        "memberships/good/group-deleted",
    ],
    "facts-applied": ["memberships/good/member-assigned", "credits/good/granted-monthly"],
}
"""Outputs that stand as examples, by the inputs they come of."""


def pretty(value: Any) -> str:
    return json.dumps(value, indent=2, ensure_ascii=False) + "\n"


def schema_of(topic: str) -> dict[str, Any]:
    schema = msgspec.json.schema(GENERATED[topic])
    return {"$schema": DIALECT, "title": topic, **schema}


def derived_files() -> dict[Path, str]:
    """Every derived file with the text that it should have."""
    files = {SCHEMAS / f"{topic}.schema.json": pretty(schema_of(topic)) for topic in GENERATED}
    for name, message in partners.MESSAGES.items():
        schema = {"$schema": DIALECT, "title": name, **msgspec.json.schema(message)}
        files[SCHEMAS / "partners" / f"{name}.schema.json"] = pretty(schema)
    dead_letters = SCHEMAS / "dead-letters.schema.json"
    by_hand = json.loads(dead_letters.read_text(encoding="utf-8"))
    by_hand["properties"]["reason"]["enum"] = [reason.value for reason in Reason]
    files[dead_letters] = pretty(by_hand)
    by_path = {f"{e.topic}/{e.path}": e for topic in INPUT_TOPICS for e in examples(topic)}
    results = {path: run(example) for path, example in by_path.items()}
    for topic in INPUT_TOPICS:
        snapshot = {
            example.path: results[path].as_json()
            for path, example in by_path.items()
            if example.topic == topic
        }
        files[SNAPSHOTS / f"{topic}.json"] = pretty(snapshot)
    for topic, sources in OUTPUT_EXAMPLES.items():
        for source in sources:
            name = source.rpartition("/")[2]
            for number, record in enumerate(results[source].outputs[topic], 1):
                written = {"about": f"Comes of {source}.", "key": by_path[source].key}
                written["value"] = msgspec.to_builtins(record)
                place = EXAMPLES / topic / "good"
                files[place / f"{name}-{number}.json"] = pretty(written)
    return files


def main() -> None:
    SNAPSHOTS.mkdir(exist_ok=True)
    for path, text in derived_files().items():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
