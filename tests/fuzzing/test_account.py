"""The account of a fuzzing round is not blind: what is tampered with is noticed."""

from collections.abc import Callable
from dataclasses import replace

import pytest

from cli.fuzzing.account import Account
from cli.fuzzing.records import Sent
from cli.verification.topic_contents import Contents
from schemas import headers
from schemas.topics import DEAD_LETTERS, FACTS_APPLIED, INPUTS, USAGE, USAGE_RATED
from tests.verification.offline import SETTINGS, played


@pytest.fixture(scope="module")
def contents(tmp_path_factory: pytest.TempPathFactory) -> Contents:
    result, _, _ = played(tmp_path_factory.mktemp("played"), 300, 5)
    return result


def account_of(contents: Contents, tamper: Callable[[Contents], None]) -> Account:
    sent = {
        (name, 0, record.offset): Sent(name, record.key, record.value, tuple(record.headers))
        for name in INPUTS
        for record in contents.records[name]
    }
    mine = Contents(0, {name: list(records) for name, records in contents.records.items()})
    tamper(mine)
    account = Account(SETTINGS, sent)
    account.add(mine)
    account.finish()
    return account


def test_what_is_untouched_adds_up(contents: Contents) -> None:
    account = account_of(contents, lambda _: None)
    assert account.differences.total == 0, account.differences.first
    counts = account.counts
    outcomes = ("rated", "duplicates", "dead_letters", "sent_on", "facts_applied", "repeated_facts")
    assert counts["records"] == sum(counts[name] for name in outcomes)
    assert min(counts[name] for name in ("rated", "duplicates", "dead_letters")) > 0


@pytest.mark.parametrize("name", [USAGE_RATED, DEAD_LETTERS, FACTS_APPLIED, USAGE])
def test_what_is_missing_is_lost(contents: Contents, name: str) -> None:
    def drop(mine: Contents) -> None:
        first = next(
            number
            for number, record in enumerate(mine.records[name])
            if (headers.TOPIC, b"usage") in record.headers or name != DEAD_LETTERS
        )
        del mine.records[name][first]

    assert account_of(contents, drop).differences.lost > 0


@pytest.mark.parametrize("name", [USAGE_RATED, DEAD_LETTERS])
def test_what_is_there_twice_is_noticed(contents: Contents, name: str) -> None:
    def repeat(mine: Contents) -> None:
        mine.records[name].append(mine.records[name][0])

    assert account_of(contents, repeat).differences.duplicated > 0


@pytest.mark.parametrize("change", [{"value": b"other"}, {"key": b"other"}])
def test_a_letter_that_says_something_else_is_wrong(
    contents: Contents, change: dict[str, bytes]
) -> None:
    def alter(mine: Contents) -> None:
        mine.records[DEAD_LETTERS][0] = replace(mine.records[DEAD_LETTERS][0], **change)

    assert account_of(contents, alter).differences.wrong > 0


def test_a_letter_whose_original_headers_changed_is_wrong(contents: Contents) -> None:
    def alter(mine: Contents) -> None:
        letter = mine.records[DEAD_LETTERS][0]
        mine.records[DEAD_LETTERS][0] = replace(letter, headers=[("x", b"y"), *letter.headers])

    assert account_of(contents, alter).differences.wrong > 0
