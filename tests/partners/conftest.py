"""A reference partner over real HTTP, and our client for it."""

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest

from api.payments.partners.client import PartnerClient
from api.payments.partners.file import Partner, parse_partners
from api.storage.migrate import migrate
from api.storage.store import Store
from deploy.embedded.partner.app import BASE, Keys
from deploy.embedded.partner.process import new_secret
from deploy.embedded.partner.serving import in_thread
from deploy.embedded.ports import free_port
from schemas.partners import ChargeRequest

TIMEOUT_S = 5.0


@dataclass(frozen=True)
class Reference:
    """A running reference partner, as configured here."""

    url: str
    partner: Partner
    keys: Keys
    directory: Path

    def control(self, switch: str, **body: Any) -> Any:
        answer = httpx.post(f"{self.url}/_control/{switch}", json=body, timeout=30)
        answer.raise_for_status()
        return answer.json()

    def state(self) -> dict[str, Any]:
        known: dict[str, Any] = httpx.get(f"{self.url}/_control/state", timeout=30).json()
        return known

    def client(self, **more: Any) -> PartnerClient:
        changed = self.partner.model_copy(update={"timeout_s": more.pop("timeout_s", TIMEOUT_S)})
        return PartnerClient(changed, sleep=more.pop("sleep", no_pause), **more)


async def no_pause(_seconds: float) -> None:
    await asyncio.sleep(0)


def partner_toml(base: str, keys: Keys, **more: Any) -> str:
    fields = {
        "base": base,
        "signing_secrets": [keys.signing],
        "webhook_secrets": [keys.webhook],
        "organizations": ["org_a"],
        "allow_networks": ["127.0.0.1/32"],
        **more,
    }
    lines = [f"{name} = {_toml(value)}" for name, value in fields.items()]
    return "\n".join(["[partners.reference]", *lines, ""])


def _toml(value: Any) -> str:
    if isinstance(value, list):
        return f"[{', '.join(_toml(one) for one in value)}]"
    return f'"{value}"' if isinstance(value, str) else str(value)


@pytest.fixture(scope="module")
def lasting_reference(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Reference]:
    """One server for the tests of a module."""
    with running_reference(tmp_path_factory.mktemp("partner")) as running:
        yield running


@pytest.fixture
def reference(lasting_reference: Reference) -> Reference:
    """It knows nothing yet."""
    lasting_reference.control("reset")
    return lasting_reference


@contextmanager
def running_reference(directory: Path) -> Iterator[Reference]:
    keys = Keys(new_secret(), new_secret())
    with in_thread(directory, free_port(), keys) as url:
        partner = parse_partners(partner_toml(url + BASE, keys)).by_name["reference"]
        yield Reference(url, partner, keys, directory)


@pytest.fixture(scope="session")
def migrated(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A migrated SQLite file to copy: migrating takes longer than most of these tests."""
    file = tmp_path_factory.mktemp("migrated") / "control-plane.sqlite"
    store = Store(f"sqlite:///{file}")
    migrate(store)
    store.close()
    return file


def charge_request(purchase_id: str = "purchase_1", **changed: Any) -> ChargeRequest:
    fields: dict[str, Any] = {
        "purchase_id": purchase_id,
        "organization_id": "org_a",
        "pool_kind": "group",
        "pool_id": "group_editors",
        "kind": "one_time",
        "package_id": "package_100",
        "description": "100 credits",
        "packages": 3,
        "credits_micro": 300_000_000,
        "amount_minor": 2997,
        "currency": "USD",
    }
    return ChargeRequest(**{**fields, **changed})
