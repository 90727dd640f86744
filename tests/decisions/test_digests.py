"""Identity and content: their values are pinned, because they are stored for weeks."""

from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from streams.decisions import digests
from streams.decisions.dedupe import Verdict, judge
from streams.decisions.digests import content_digest, identity
from tests.decisions.worker import T0

TEXTS = st.text(st.characters(codec="utf-8"), max_size=6)


def test_the_stored_values_never_change() -> None:
    assert identity("org_7", "editor/eu-1", "evt_1").hex() == "1ccce3c8927899c2abda90d4d62045cd"
    digest = content_digest("ai.tokens", "user_42", T0, 1_830_000_000, "web_3", {"b": "ü", "a": ""})
    assert digest == 13_514_246_571_458_642_349


@given(st.tuples(TEXTS, TEXTS, TEXTS), st.tuples(TEXTS, TEXTS, TEXTS))
def test_other_parts_are_another_identity(
    one: tuple[str, str, str], other: tuple[str, str, str]
) -> None:
    assert (identity(*one) == identity(*other)) == (one == other)


def test_parts_do_not_run_together() -> None:
    assert identity("a", "bc", "d") != identity("ab", "c", "d") != identity("ab", "", "cd")


def test_the_order_of_dimensions_is_no_content() -> None:
    one = content_digest("m", "s", None, 1, "", {"a": "1", "b": "2"})
    assert one == content_digest("m", "s", None, 1, "", {"b": "2", "a": "1"})
    assert one != content_digest("m", "s", None, 1, "", {"b": "1", "a": "2"})
    assert one != content_digest("m", "s", datetime(2026, 1, 1, tzinfo=UTC), 1, "", {})


def test_no_content_is_the_word_for_unseen(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(digests, "xxh3_64_intdigest", lambda _: 0)
    assert content_digest("m", "s", None, 1, "", {}) == 1


def test_verdicts() -> None:
    assert judge(0, 5) is Verdict.FRESH
    assert judge(5, 5) is Verdict.DUPLICATE
    assert judge(6, 5) is Verdict.CONFLICT
