"""Who is paid in `up`: stand-ins, unless somebody configured whom; never a live key."""

from pathlib import Path

import pytest

from cli.errors import WRONG_SETTINGS, Failure
from cli.up.data_dir import DataDirectory
from cli.up.payments import PaymentParts

API = "http://127.0.0.1:1"


def parts(path: Path, configured: dict[str, str], *, demo: bool = True) -> PaymentParts:
    return PaymentParts(DataDirectory(path), configured, API, 20_001, demo=demo)


def test_without_a_key_it_is_the_stand_in_the_same_at_every_start(tmp_path: Path) -> None:
    first, again = (parts(tmp_path, {}).environment() for _ in range(2))
    assert first == again
    assert first["METERING_STRIPE_API_KEY"].startswith("sk_test_")
    assert first["METERING_STRIPE_WEBHOOK_SECRET"].startswith("whsec_")
    assert first["METERING_STRIPE_API_BASE"] == "http://127.0.0.1:20001"
    assert parts(tmp_path, {}).for_people() != {}


def test_with_a_key_of_stripes_nothing_of_the_stand_in_is_there(tmp_path: Path) -> None:
    key = "sk_" + "test_of_somebody"
    chosen = parts(tmp_path, {"METERING_STRIPE_API_KEY": key}, demo=False)
    assert chosen.environment() == {}
    assert chosen.for_people() == {}
    assert chosen.rows() == []
    assert not (tmp_path / "stripe").exists()


@pytest.mark.parametrize("kind", ["sk", "rk"])
def test_a_live_key_is_refused(tmp_path: Path, kind: str) -> None:
    key = f"{kind}_" + "live_of_somebody"
    with pytest.raises(Failure, match="live key") as refused:
        parts(tmp_path, {"METERING_STRIPE_API_KEY": key})
    assert refused.value.exit_code == WRONG_SETTINGS
    assert key not in str(refused.value)


def test_the_demos_partner_gives_way_to_configured_ones(tmp_path: Path) -> None:
    ours = parts(tmp_path, {})
    file = Path(ours.environment()["METERING_PARTNERS_FILE"])
    assert file.stat().st_mode & 0o077 == 0
    assert "org_acme" in file.read_text()
    assert parts(tmp_path, {"METERING_PARTNERS_FILE": "theirs.toml"}).partner is None
    assert parts(tmp_path, {}, demo=False).partner is None
