"""The doctor names what is wrong, and stays calm where all is well."""

import asyncio
from datetime import UTC, datetime
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from api.outbox.compare import TOPIC_AHEAD, Halt, write_halts
from api.storage.store import Store, database_url
from cli.control_plane import migrate_database
from cli.doctor import Finding, examine, render
from deploy.embedded import EmbeddedClickHouse, EmbeddedKafka
from deploy.embedded.ports import free_port
from schemas.settings import Settings
from streams.kafka import create_topics
from tests.api.serving import serving
from tests.cli.conftest import RunCommand
from tests.conftest import MakeSettings
from tests.stripe.running import running_stripe
from warehouse.migrations import migrate


@pytest.fixture(autouse=True)
def no_api(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever runs on this machine: nobody answers where the API would."""
    monkeypatch.setenv("METERING_API_PORT", str(free_port()))


def by_subject(findings: list[Finding]) -> dict[str, str]:
    return {finding.subject: finding.level for finding in findings}


def about(subject: str, settings: Settings) -> Finding:
    """The finding about one thing, when neither Kafka nor ClickHouse answers."""
    nowhere = {"kafka_bootstrap": "127.0.0.1:1", "clickhouse_url": "http://127.0.0.1:1"}
    findings = asyncio.run(examine(settings.model_copy(update=nowhere)))
    (only,) = [finding for finding in findings if finding.subject == subject]
    return only


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
    assert levels["database"] == "wrong"
    assert "metering topics create" in render(findings)
    assert "metering migrate" in render(findings)
    await create_topics(settings)
    migrate(settings)
    migrate_database(settings)
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


def test_brokers_that_are_away_are_told_in_our_words(make_settings: MakeSettings) -> None:
    assert about("Kafka", make_settings()).text == "127.0.0.1:1 does not answer"


async def test_nothing_answers(make_settings: MakeSettings, tmp_path: Path) -> None:
    settings = make_settings(
        kafka_bootstrap="127.0.0.1:1", clickhouse_url="http://127.0.0.1:1", data_dir=tmp_path
    )
    levels = by_subject(await examine(settings))
    assert levels["Kafka"] == levels["ClickHouse"] == "wrong"
    assert levels["settings"] == "note"  # no alias secret
    assert levels["disk"] == "ok"


def test_where_nothing_runs_it_says_so_below_what_it_found(
    run_command: RunCommand, tmp_path: Path
) -> None:
    (tmp_path / "up.env").write_text(
        "METERING_KAFKA_BOOTSTRAP='127.0.0.1:1'\nMETERING_CLICKHOUSE_URL='http://127.0.0.1:1'\n"
    )
    outcome = run_command("doctor", "--data-dir", str(tmp_path))
    assert outcome.returncode == 1
    assert "ClickHouse does not answer: Connection refused (http://127.0.0.1:1)" in outcome.stdout
    assert f"Nothing runs here; start `./metering up` (looked in {tmp_path}" in outcome.stdout


@pytest.mark.parametrize("level", ["ok", "note"])
def test_notes_are_not_to_be_mended(level: str) -> None:
    finding = Finding("ok" if level == "ok" else "note", "disk", "fine")
    assert "all is well" in render([finding])


def test_looking_for_the_database_does_not_make_it(make_settings: MakeSettings) -> None:
    settings = make_settings()
    assert "not there: run `metering migrate`" in about("database", settings).text
    file = settings.data_dir / "control-plane.sqlite"
    assert not file.exists()
    file.parent.mkdir(parents=True)
    file.touch()
    assert "not of this release: run `metering migrate`" in about("database", settings).text
    migrate_database(settings)
    assert about("database", settings).level == "ok"


def test_a_server_that_is_away_is_named_without_its_password(make_settings: MakeSettings) -> None:
    url = "postgresql://metering:hunter2@127.0.0.1:1/metering"
    finding = about("database", make_settings(database_url=url))
    assert finding.level == "wrong"
    assert "metering:********@127.0.0.1:1" in finding.text
    assert "hunter2" not in finding.text
    url = "postgresql://127.0.0.1:1/metering?user=metering&password=hunter2&sslmode=disable"
    finding = about("database", make_settings(database_url=url))
    assert "password=********&sslmode=disable&user=********" in finding.text
    assert "hunter2" not in finding.text
    assert about("database", make_settings(database_url="nonsense")).level == "wrong"


def test_publishing_that_has_stopped_says_what_to_do(make_settings: MakeSettings) -> None:
    settings = make_settings()
    migrate_database(settings)
    store = Store(database_url(settings))
    with store.write() as session:
        what = "Until `metering facts import` has run."
        write_halts(session, [Halt("org_a", "memberships", TOPIC_AHEAD, what)], datetime.now(UTC))
    store.close()
    finding = about("publishing", settings)
    assert finding.level == "wrong"
    assert "metering facts import" in finding.text


async def test_the_api_is_asked_and_its_release_compared(
    kafka: EmbeddedKafka, make_settings: MakeSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = make_settings()
    await create_topics(settings)

    async def ask() -> Finding:
        return await asyncio.to_thread(about, "API", settings)

    assert (await ask()).level == "note"
    with serving(settings) as served:
        monkeypatch.setenv("METERING_API_PORT", str(urlsplit(served.url).port))
        monkeypatch.setenv("METERING_API_HOST", "0.0.0.0")
        assert (await ask()).level == "ok"
        monkeypatch.setattr("cli.doctor.code_digest", lambda: "of newer code")
        older = await ask()
        assert older.level == "wrong"
        assert "not of this release" in older.text


def test_what_the_api_waits_for_is_told_in_its_words_not_as_json(
    make_settings: MakeSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = make_settings(kafka_bootstrap="127.0.0.1:1")
    with serving(settings, publish=True) as served:
        port = urlsplit(served.url).port
        monkeypatch.setenv("METERING_API_PORT", str(port))
        found = about("API", settings)
    assert found.level == "wrong"
    assert found.text.startswith(f"not ready at 127.0.0.1:{port}: events: Kafka at 127.0.0.1:1")
    assert "{" not in found.text


def test_wrong_options_of_the_api(
    make_settings: MakeSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("METERING_API_PORT", "many")
    finding = about("API", make_settings())
    assert finding.level == "wrong"
    assert "METERING_API_PORT" in finding.text


def test_a_key_of_stripes_is_tried(
    make_settings: MakeSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = make_settings()
    assert about("Stripe", settings).level == "note"
    with running_stripe() as stripe:
        monkeypatch.setenv("METERING_STRIPE_API_KEY", stripe.api_key)
        finding = about("Stripe", settings)
        assert (finding.level, "WEBHOOK_SECRET is missing" in finding.text) == ("wrong", True)
        monkeypatch.setenv("METERING_STRIPE_WEBHOOK_SECRET", stripe.webhook_secret)
        monkeypatch.setenv("METERING_STRIPE_API_BASE", stripe.url)
        finding = about("Stripe", settings)
        assert finding.level == "ok"
        assert "test mode" in finding.text
        monkeypatch.setenv("METERING_STRIPE_API_KEY", "sk_" + "test_of_somebody_else")
        finding = about("Stripe", settings)
        assert finding.level == "wrong"
        assert "somebody_else" not in finding.text
