"""`deploy/partner.md` says what the structs, the schemas and the signatures say."""

import json
import re
from datetime import UTC, datetime
from typing import Any, get_args

import jsonschema
import msgspec
import pytest

from api.payments.partners.answers import REFUSALS
from api.payments.partners.file import parse_partners
from api.payments.partners.signing import signed_headers
from deploy.embedded.child import PROJECT_ROOT
from schemas import partners as contract
from tests.schemas.generate import SCHEMAS

TEXT = (PROJECT_ROOT / "deploy" / "partner.md").read_text(encoding="utf-8")
JSON_BLOCKS = re.findall(r"<!-- schema: ([a-z-]+) -->\n```json\n(.*?)```", TEXT, re.S)
TABLES = dict(re.findall(r"<!-- message: ([a-z-]+) -->\n((?:\|.*\n)+)", TEXT))
HTTP_BLOCKS = re.findall(r"<!-- (signed: .*?|webhook example) -->\n```http\n(.*?)```", TEXT, re.S)
WITHOUT_A_TABLE = {"webhook", "webhook-received"}


def words(row: str) -> list[str]:
    return re.findall(r"`([^`]+)`", row.split("|")[1])


def table_after(mark: str) -> list[str]:
    found = re.search(rf"<!-- {mark} -->\n((?:\|.*\n)+)", TEXT)
    assert found
    return found[1].splitlines()[2:]


@pytest.mark.parametrize(("name", "text"), JSON_BLOCKS)
def test_every_example_fits_its_schema_and_our_code(name: str, text: str) -> None:
    schema = json.loads((SCHEMAS / "partners" / f"{name}.schema.json").read_text())
    checker = jsonschema.Draft202012Validator
    checker.check_schema(schema)
    checker(schema, format_checker=checker.FORMAT_CHECKER).validate(json.loads(text))
    read: Any = msgspec.json.decode(text, type=contract.MESSAGES[name])
    again = json.loads(msgspec.json.encode(read))
    assert {**again, **json.loads(text)} == again | json.loads(text)


def test_every_message_has_its_fields_described() -> None:
    shown = {name for name, _ in JSON_BLOCKS} | set(TABLES)
    assert shown | WITHOUT_A_TABLE >= set(contract.MESSAGES)
    for name, table in TABLES.items():
        fields = [word for row in table.splitlines()[2:] for word in words(row)]
        assert sorted(fields) == sorted(contract.MESSAGES[name].__struct_fields__), name


def test_every_webhook_is_listed() -> None:
    tags = [event.__struct_config__.tag for event in get_args(contract.Webhook)]
    assert [words(row)[0] for row in table_after("webhooks")] == tags


def test_the_final_refusals_are_those_that_are_believed() -> None:
    listed: dict[int, set[str]] = {}
    for row in table_after("refusals"):
        _, status, code, *_ = row.split("|")
        listed.setdefault(int(status), set()).add(code.strip(" `"))
    assert listed == REFUSALS


def test_no_open_answer_is_believed_to_be_final() -> None:
    for row in table_after("open answers"):
        _, status, code, *_ = row.split("|")
        assert code.strip(" `") not in REFUSALS.get(int(status), set())


def test_the_configuration_in_it_is_taken() -> None:
    (toml,) = re.findall(r"```toml\n(.*?)```", TEXT, re.S)
    assert parse_partners(toml).of("org_7") is not None


def test_every_signature_in_it_is_right() -> None:
    (toml,) = re.findall(r"```toml\n(.*?)```", TEXT, re.S)
    partner = parse_partners(toml).by_name["acme"]
    assert len(HTTP_BLOCKS) == 3
    for mark, block in HTTP_BLOCKS:
        head, _, body = block.rstrip("\n").partition("\n\n")
        headers = dict(re.findall(r"^([\w-]+): (.*)$", head, re.M))
        target = mark.removeprefix("signed: ")
        payload = body or target
        is_ours = mark.startswith("signed: ")
        secrets = partner.signing_secrets if is_ours else partner.webhook_secrets
        expected = signed_headers(
            payload,
            [one.get_secret_value() for one in secrets],
            message_id=headers["webhook-id"],
            at=datetime.fromtimestamp(int(headers["webhook-timestamp"]), UTC),
        )
        assert headers["webhook-signature"] == expected["webhook-signature"], block
        if is_ours:
            method, _, rest = target.partition(" ")
            assert head.startswith(f"{method} /metering/v1{rest} HTTP/1.1")
