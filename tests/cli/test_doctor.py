"""The doctor names what is wrong, and stays calm where all is well."""

from pathlib import Path

import pytest

from cli.doctor import Finding, examine, render
from deploy.embedded import EmbeddedClickHouse, EmbeddedKafka
from streams.kafka import create_topics
from tests.conftest import MakeSettings
from warehouse.migrations import migrate


def by_subject(findings: list[Finding]) -> dict[str, str]:
    return {finding.subject: finding.level for finding in findings}


async def test_before_and_after_set_up(
    kafka: EmbeddedKafka, clickhouse: EmbeddedClickHouse, make_settings: MakeSettings
) -> None:
    settings = make_settings(
        alias_secret="sixteen characters",
        clickhouse_finance_user=clickhouse.reader.name,
        clickhouse_finance_password=clickhouse.reader.password,
    )
    findings = await examine(settings)
    levels = by_subject(findings)
    assert levels["Kafka"] == levels["ClickHouse"] == levels["clock"] == "ok"
    assert levels["topics"] == levels["tables"] == levels["finance"] == "wrong"
    assert "metering topics create" in render(findings)
    assert "metering migrate" in render(findings)
    await create_topics(settings)
    migrate(settings)
    findings = await examine(settings)
    assert not [finding for finding in findings if finding.is_wrong], render(findings)
    assert render(findings).endswith("all is well")


async def test_a_partition_count_that_differs(
    kafka: EmbeddedKafka, make_settings: MakeSettings
) -> None:
    await create_topics(make_settings())
    findings = await examine(make_settings(partitions=5, clickhouse_url="http://127.0.0.1:1"))
    assert by_subject(findings)["topics"] == "wrong"
    assert "never changes" in render(findings)


async def test_nothing_answers(make_settings: MakeSettings, tmp_path: Path) -> None:
    settings = make_settings(
        kafka_bootstrap="127.0.0.1:1", clickhouse_url="http://127.0.0.1:1", data_dir=tmp_path
    )
    levels = by_subject(await examine(settings))
    assert levels["Kafka"] == levels["ClickHouse"] == "wrong"
    assert levels["settings"] == "note"  # no alias secret
    assert levels["disk"] == "ok"


@pytest.mark.parametrize("level", ["ok", "note"])
def test_notes_are_not_to_be_mended(level: str) -> None:
    finding = Finding("ok" if level == "ok" else "note", "disk", "fine")
    assert "all is well" in render([finding])
