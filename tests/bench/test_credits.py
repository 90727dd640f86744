"""The benchmark of what is left of credits checks what it asks."""

from typing import Any

import pytest

from bench import credits
from deploy.embedded import EmbeddedClickHouse
from tests.conftest import MakeSettings
from warehouse.migrations import migrate


def test_it_measures_every_question_and_believes_no_wrong_answer(
    clickhouse: EmbeddedClickHouse, make_settings: MakeSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = make_settings()
    migrate(settings)
    results = credits.measure(settings, events=1_000, questions=2)
    assert {name.rsplit("_", 2)[0] for name in results} == {
        "group",
        "website",
        "organization",
        "by_grant",
    }
    wrong: Any = credits.list_grants
    monkeypatch.setattr(credits, "list_grants", lambda *asked: wrong(*asked)[1:])
    with pytest.raises(AssertionError):
        credits._check(lambda *_: [], 1_000)
