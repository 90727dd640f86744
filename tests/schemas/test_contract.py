"""The contract as files: schemas are fresh, examples fit them, and do what the snapshots say."""

import json
from typing import Any

import jsonschema
import pytest

from schemas.reasons import Reason
from schemas.topics import all_topics
from tests.schemas.examples import EXAMPLES, INPUT_TOPICS, Example, examples, run
from tests.schemas.generate import DIALECT, OUTPUT_EXAMPLES, SCHEMAS, SNAPSHOTS, derived_files

INPUTS = [example for topic in INPUT_TOPICS for example in examples(topic)]
OUTPUTS = [example for topic in OUTPUT_EXAMPLES for example in examples(topic)]
WITHOUT_SCHEMA = {
    "metering-state": "internal: values by kind, see schemas.codec.STATE_TYPES",
    "metering-seen": "internal: packed bytes",
}
NOT_BY_THE_VALUE = {"odd/binary-mode"}
"""The value is the data alone, and the schema describes structured mode."""


def name_of(example: Example) -> str:
    return f"{example.topic}/{example.path}"


def validator(topic: str) -> Any:
    schema = json.loads((SCHEMAS / f"{topic}.schema.json").read_text(encoding="utf-8"))
    checker = jsonschema.Draft202012Validator
    checker.check_schema(schema)
    return checker(schema, format_checker=checker.FORMAT_CHECKER)


def test_derived_files_are_fresh() -> None:
    """`python -m tests.schemas.generate` writes them; read the difference before committing."""
    files = derived_files()
    stale = [str(p) for p, text in files.items() if not p.exists() or p.read_text() != text]
    assert not stale
    written = {path for topic in OUTPUT_EXAMPLES for path in (EXAMPLES / topic).rglob("*.json")}
    written |= set(SNAPSHOTS.glob("*.json"))
    assert written <= set(files), "an orphan: nothing writes it any more"


def test_every_topic_has_a_schema_or_a_reason_why_not() -> None:
    described = {path.name.removesuffix(".schema.json") for path in SCHEMAS.glob("*.json")}
    assert described | set(WITHOUT_SCHEMA) == set(all_topics())
    for topic in described:
        assert validator(topic).schema["$schema"] == DIALECT


@pytest.mark.parametrize("example", [e for e in INPUTS if e.kind != "bad"], ids=name_of)
def test_what_is_accepted_fits_the_schema(example: Example) -> None:
    if example.path not in NOT_BY_THE_VALUE:
        validator(example.topic).validate(example.value)
    result = run(example)
    assert result.rejected is None
    assert result.ignored == (example.name == "repetition")


@pytest.mark.parametrize("example", OUTPUTS, ids=name_of)
def test_outputs_fit_their_schema(example: Example) -> None:
    validator(example.topic).validate(example.value)


@pytest.mark.parametrize("example", [e for e in INPUTS if e.kind == "bad"], ids=name_of)
def test_what_is_bad_is_refused(example: Example) -> None:
    rejected = run(example).rejected
    assert rejected is not None
    letter = {"reason": rejected.reason, "detail": rejected.detail, "topic": example.topic}
    letter |= {"partition": "3", "offset": "17", "append-time-ms": "1793534400000"}
    validator("dead-letters").validate(letter)


@pytest.mark.parametrize("example", INPUTS, ids=name_of)
def test_every_record_of_an_example_fits_its_schema(example: Example) -> None:
    for topic, values in run(example).as_json().items():
        if topic in OUTPUT_EXAMPLES:
            for value in values:
                validator(topic).validate(value)


def test_examples_show_most_reasons() -> None:
    """What no example shows is tested elsewhere, and cannot be one record of one world."""
    reasons = {result.rejected.reason for e in INPUTS if (result := run(e)).rejected}
    elsewhere = {
        Reason.TOO_LARGE,
        Reason.TOO_MANY_DIMENSIONS,
        Reason.WRONG_PARTITION,
        Reason.CONFLICT,
        Reason.COST_TOO_LARGE,
        Reason.FACTS_STOPPED,
        Reason.ORGANIZATION_EXISTS,
        Reason.GROUP_DELETED,
        Reason.UNKNOWN_MEMBER,
        Reason.TOO_MANY_GRANTS,
        Reason.TOO_MANY_CHANGES,
        Reason.INTERNAL_ERROR,
    }
    assert reasons == set(Reason) - elsewhere
