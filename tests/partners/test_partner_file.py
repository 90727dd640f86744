"""METERING_PARTNERS_FILE: what is taken, and the one line for everything that is not."""

from pathlib import Path
from typing import Any

import pytest

from api.payments.partners.file import WrongPartnersFile, load_partners, parse_partners
from deploy.embedded.partner.app import Keys
from deploy.embedded.partner.process import EmbeddedPartner, new_secret
from tests.partners.conftest import partner_toml

KEYS = Keys(new_secret(), new_secret())
PUBLIC = "https://billing.acme.example/metering/v1"


def toml(base: str = PUBLIC, **more: Any) -> str:
    return partner_toml(base, KEYS, **{"allow_networks": [], **more})


def test_a_partner_is_found_by_its_name_and_by_whom_it_pays_for() -> None:
    partners = parse_partners(toml())
    partner = partners.by_name["reference"]
    assert (partner.base, partner.provider) == (PUBLIC, "partner:reference")
    assert partners.of("org_a") is partner
    assert partners.of("org_b") is None


def test_no_file_is_no_partner() -> None:
    assert load_partners(None).by_name == {}


def test_the_reference_partner_writes_a_file_that_is_taken(tmp_path: Path) -> None:
    embedded = EmbeddedPartner(tmp_path)
    partner = parse_partners(embedded.partners_toml(["org_demo"])).of("org_demo")
    assert partner is not None
    assert partner.base == embedded.base
    again = EmbeddedPartner(tmp_path)
    assert (again.base, again.webhook_secret) == (embedded.base, embedded.webhook_secret)


@pytest.mark.parametrize(
    ("base", "networks"),
    [
        ("https://10.1.2.3/v1", ["10.1.0.0/16"]),
        ("https://[fd00::1]:8443/v1", ["fd00::/64"]),
        ("http://127.0.0.1:9000/v1", ["127.0.0.0/8"]),
        ("http://[::1]:9000", ["::1/128"]),
    ],
)
def test_a_private_address_that_is_allowed_is_taken(base: str, networks: list[str]) -> None:
    assert parse_partners(toml(base, allow_networks=networks)).by_name


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("x = 1", "'x' is not known here"),
        ("partners = 1", "write a table for each"),
        ("[partners]\nacme = 1", "write a table for each"),
        (toml().replace("reference", '"Acme Inc"'), "a partner's name has"),
        (toml("http://billing.acme.example/v1"), "base: is to be https"),
        (toml("http://10.0.0.1/v1", allow_networks=["10.0.0.0/8"]), "base: is to be https"),
        (toml("ftp://billing.acme.example"), "base: is to be https"),
        (toml("billing.acme.example"), "base: is to be https"),
        (toml("https:///v1"), "base: is to be https"),
        (toml("https://user:pw@acme.example/v1"), "without a user"),
        (toml(PUBLIC + "/"), "no slash at its end"),
        (toml(PUBLIC + "?a=b"), "no `?`"),
        (toml(PUBLIC + "#a"), "no `?`"),
        (toml("https://acme.example:99999/"), "partners.reference"),
        (toml("https://acme example/"), "is not an address"),
        (toml("https://acme.example:0/v1"), "base: is to be https"),
        (toml(r"https://acme.example\\@10.0.0.1/v1"), "base: is to be https"),
        (toml(r"https://acme\\.example/v1"), "base: is to be https"),
        (toml("https://localhost/v1"), "localhost is no public address"),
        (toml("https://localhost./v1"), "localhost is no public address"),
        (toml("https://here.localhost./v1"), "localhost is no public address"),
        (toml("https://127.0.0.1/v1"), "127.0.0.1 is no public address"),
        (toml("http://127.0.0.1/v1"), "127.0.0.1 is no public address"),
        (toml("https://169.254.169.254/v1"), "is no public address"),
        (toml("https://[::ffff:10.0.0.1]/v1"), "is no public address"),
        (toml(allow_networks=["0.0.0.0/0"]), "too wide"),
        (toml(allow_networks=["::/0"]), "too wide"),
        (toml(allow_networks=["10.1.2.3/16"]), "allow_networks"),
        (toml(allow_networks=["here"]), "allow_networks"),
        (toml(signing_secrets=[]), "signing_secrets"),
        (toml(signing_secrets=["hunter2"]), "signing_secrets: a secret is `whsec_`"),
        (toml(webhook_secrets=["whsec_???"]), "webhook_secrets: a secret is `whsec_`"),
        (toml(webhook_secrets=["whsec_AAAA"]), "a secret has 3 bytes"),
        (toml(webhook_secrets="whsec_AAAA"), "is to be a list"),
        (toml(webhook_secrets=[KEYS.signing]), "could be sent back to us"),
        (toml(organizations=["a b"]), "organizations"),
        (toml(organizations="org_a"), "is to be a list"),
        (toml(timeout_s=0), "timeout_s"),
        (toml(timeout_s=61), "timeout_s"),
        (toml(color="red"), "color"),
        (toml(name="acme"), "the table's name is the partner's"),
        ("[partners.reference]", "base"),
        (toml() + toml().replace("reference", "other"), "org_a is reference's already"),
        (
            toml() + toml(organizations=["org_b"]).replace("reference", "other"),
            "has a secret of reference",
        ),
    ],
)
def test_what_is_wrong_is_one_line_without_secrets(text: str, said: str, tmp_path: Path) -> None:
    file = tmp_path / "partners.toml"
    file.write_text(text)
    with pytest.raises(WrongPartnersFile) as wrong:
        load_partners(file)
    line = str(wrong.value)
    assert said in line
    assert line.startswith(f"METERING_PARTNERS_FILE {file}: ")
    assert "\n" not in line
    for secret in (KEYS.signing, KEYS.webhook, "hunter2"):
        assert secret not in line


@pytest.mark.parametrize("content", [b"[partners", b"\xff", b"a = 1\na = 2", b"x=" + b"[" * 5000])
def test_what_is_no_toml_is_said_with_its_place(content: bytes, tmp_path: Path) -> None:
    file = tmp_path / "partners.toml"
    file.write_bytes(content)
    with pytest.raises(WrongPartnersFile, match="is not TOML"):
        load_partners(file)


def test_a_file_that_is_not_there_is_said(tmp_path: Path) -> None:
    with pytest.raises(WrongPartnersFile, match="No such file"):
        load_partners(tmp_path / "none.toml")
    with pytest.raises(WrongPartnersFile, match="directory"):
        load_partners(tmp_path)


def test_secrets_are_not_in_what_is_printed() -> None:
    assert KEYS.signing not in repr(parse_partners(toml()).by_name)
