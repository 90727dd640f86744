"""The partners' file in `config`, `doctor` and at the start of the API."""

from pathlib import Path
from typing import Any

import pytest

from cli.doctor import examine
from deploy.embedded.partner.app import Keys
from deploy.embedded.partner.process import new_secret
from schemas.settings import Settings
from tests.cli.conftest import RunCommand, run_command
from tests.partners.conftest import partner_toml

__all__ = ["run_command"]

KEYS = Keys(new_secret(), new_secret())


def write(tmp_path: Path, text: str, **more: Any) -> Settings:
    file = tmp_path / "partners.toml"
    file.write_text(text)
    file.chmod(more.pop("mode", 0o600))
    return Settings(partners_file=file, data_dir=tmp_path, **more)


def test_config_shows_each_partner_and_no_secret(tmp_path: Path, run_command: RunCommand) -> None:
    settings = write(tmp_path, partner_toml("https://acme.example/v1", KEYS, allow_networks=[]))
    outcome = run_command("config", settings=settings)
    assert outcome.returncode == 0, outcome.stderr
    rows = {line.split()[0]: line.split()[1] for line in outcome.stdout.splitlines()[2:]}
    assert rows["partners.reference.base"] == "https://acme.example/v1"
    assert rows["partners.reference.signing_secrets"] == "********"
    assert rows["partners.reference.organizations"] == "org_a"
    for secret in (KEYS.signing, KEYS.webhook):
        assert secret not in outcome.stdout + outcome.stderr


@pytest.mark.parametrize("command", [["config"], ["api"], ["api", "--openapi"]])
def test_a_wrong_file_is_one_line_and_exit_2(
    tmp_path: Path, run_command: RunCommand, command: list[str]
) -> None:
    settings = write(tmp_path, partner_toml("http://acme.example/v1", KEYS))
    outcome = run_command(*command, settings=settings)
    assert outcome.returncode == 2
    assert len(outcome.stderr.splitlines()) == 1
    assert "partners.reference: base: is to be https" in outcome.stderr
    assert KEYS.signing not in outcome.stderr


async def test_the_doctor_looks_at_the_file(tmp_path: Path) -> None:
    nowhere = {"kafka_bootstrap": "127.0.0.1:1", "clickhouse_url": "http://127.0.0.1:1"}
    good = write(tmp_path, partner_toml("https://acme.example/v1", KEYS), **nowhere)
    findings = [one for one in await examine(good) if one.subject == "partners"]
    assert [one.level for one in findings] == ["ok"]
    open_to_all = write(
        tmp_path, partner_toml("https://acme.example/v1", KEYS), mode=0o644, **nowhere
    )
    findings = [one for one in await examine(open_to_all) if one.subject == "partners"]
    assert [one.level for one in findings] == ["ok", "note"]
    bad = write(tmp_path, "[partners.x]", **nowhere)
    findings = [one for one in await examine(bad) if one.subject == "partners"]
    assert [one.level for one in findings] == ["wrong"]
