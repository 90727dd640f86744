"""Packages: what can be sold, in which currencies, and that what was sold stays."""

from typing import Any

import pytest
from sqlalchemy import select
from sqlalchemy.exc import IntegrityError

from api.errors import Refused
from api.rules import packages
from api.rules.change import Control
from api.rules.currencies import CODES, MULTIPLES, WITH_THREE_DECIMALS, WITHOUT_DECIMALS, money_text
from api.rules.packages import (
    CREDITS_MICRO_MAX,
    PackageTerms,
    change_package,
    create_package,
    restore_package,
    retire_package,
    sold_packages,
)
from api.storage.ledgers import AuditEntry
from api.storage.purchases import PACKAGES_A_PURCHASE_MAX, Package
from schemas.records import INT64_MAX
from tests.api.conftest import ADMIN, Clock
from tests.api.shop import THOUSAND


@pytest.mark.parametrize(
    ("amount_minor", "currency", "text"),
    [
        (1, "USD", "0.01 USD"),
        (123_456, "EUR", "1234.56 EUR"),
        (-105, "USD", "-1.05 USD"),
        (500, "JPY", "500 JPY"),
        (5_120, "KWD", "5.120 KWD"),
        (500, "ISK", "5.00 ISK"),
        (0, "TND", "0.000 TND"),
    ],
)
def test_money_is_shown_with_the_decimals_of_its_currency(
    amount_minor: int, currency: str, text: str
) -> None:
    assert money_text(amount_minor, currency) == text


def test_special_currencies_can_be_sold_in() -> None:
    assert WITHOUT_DECIMALS | WITH_THREE_DECIMALS | set(MULTIPLES) <= CODES
    assert not WITHOUT_DECIMALS & WITH_THREE_DECIMALS


def test_fifty_of_the_largest_package_fit_the_ledger() -> None:
    assert CREDITS_MICRO_MAX * PACKAGES_A_PURCHASE_MAX <= INT64_MAX


WRONG: tuple[tuple[dict[str, Any], str], ...] = (
    ({"credits_micro": 0}, "credits_micro"),
    ({"credits_micro": CREDITS_MICRO_MAX + 1}, "credits_micro"),
    ({"price_minor": 0}, "price_minor"),
    ({"price_minor": -1}, "price_minor"),
    ({"price_minor": packages.PRICE_MINOR_MAX + 1}, "price_minor"),
    ({"currency": "QQQ"}, "currency"),
    ({"currency": "usd"}, "currency"),
    ({"currency": "ISK", "price_minor": 150}, "price_minor"),
    ({"currency": "KWD", "price_minor": 1_005}, "price_minor"),
    ({"sold_one_time": False, "sold_monthly": False}, "sold_one_time"),
    ({"name": "  "}, "name"),
    ({"stripe_one_time_price_id": "price 1"}, "stripe_one_time_price_id"),
)


def test_what_cannot_be_sold_is_refused(control: Control) -> None:
    for changed, where in WRONG:
        with pytest.raises(Refused) as refused, control.transaction(ADMIN) as transaction:
            create_package(transaction, PackageTerms(**{**THOUSAND, **changed}))
        assert (refused.value.status, refused.value.where) == (400, where), changed
    with control.store.read() as session:
        assert session.scalars(select(Package)).all() == []


def test_the_database_sells_nothing_for_nothing(control: Control) -> None:
    row = {**THOUSAND, "id": "p", "created_at": control.clock(), "updated_at": control.clock()}
    sold_in_no_way = {"sold_one_time": False, "sold_monthly": False}
    for changed in ({"credits_micro": 0}, {"price_minor": 0}, sold_in_no_way):
        with pytest.raises(IntegrityError), control.store.write() as session:
            session.add(Package(**{**row, **changed}))


def test_a_package_changes_and_is_retired_and_the_log_says_so(
    control: Control, clock: Clock
) -> None:
    with control.transaction(ADMIN) as transaction:
        create_package(transaction, PackageTerms(**THOUSAND), "pkg")
    clock.forward(hours=1)
    with control.transaction(ADMIN) as transaction:
        changed = change_package(transaction, "pkg", {"price_minor": 900})
        assert (changed.price_minor, changed.credits_micro) == (900, THOUSAND["credits_micro"])
        change_package(transaction, "pkg", {"price_minor": 900})
        retire_package(transaction, "pkg")
        retire_package(transaction, "pkg")
        assert sold_packages(transaction.session, "USD") == []
        restore_package(transaction, "pkg")
        assert [row.id for row in sold_packages(transaction.session, "USD")] == ["pkg"]
        assert sold_packages(transaction.session, "EUR") == []
    with control.store.read() as session:
        entries = session.scalars(
            select(AuditEntry)
            .where(AuditEntry.organization_id.is_(None), AuditEntry.subject_kind == "package")
            .order_by(AuditEntry.id)
        ).all()
    actions = [entry.action.removeprefix("package.") for entry in entries]
    assert actions == ["create", "change", "retire", "restore"]
    prices = [(entries[1].before or {})["price_minor"], (entries[1].after or {})["price_minor"]]
    assert prices == [THOUSAND["price_minor"], 900]


def test_a_price_does_not_change_under_a_price_of_stripe(control: Control) -> None:
    made = {**THOUSAND, "stripe_one_time_price_id": "price_1"}
    with control.transaction(ADMIN) as transaction:
        create_package(transaction, PackageTerms(**made), "pkg")
    with pytest.raises(Refused) as refused, control.transaction(ADMIN) as transaction:
        change_package(transaction, "pkg", {"price_minor": 900})
    assert refused.value.code == "stripe_price_kept"
    with control.transaction(ADMIN) as transaction:
        new = {"price_minor": 900, "stripe_one_time_price_id": "price_2"}
        assert change_package(transaction, "pkg", new).stripe_one_time_price_id == "price_2"
        change_package(transaction, "pkg", {"name": "Another name"})


def test_an_id_is_used_once(control: Control) -> None:
    with control.transaction(ADMIN) as transaction:
        create_package(transaction, PackageTerms(**THOUSAND), "pkg")
    with pytest.raises(Refused) as refused, control.transaction(ADMIN) as transaction:
        create_package(transaction, PackageTerms(**THOUSAND), "pkg")
    assert refused.value.code == "package_exists"
    for decide in (retire_package, restore_package):
        with pytest.raises(Refused) as unknown, control.transaction(ADMIN) as transaction:
            decide(transaction, "pkg_nowhere")
        assert unknown.value.status == 404


def test_only_so_many_are_sold_at_a_time(control: Control, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(packages, "PACKAGES_MAX", 2)
    with control.transaction(ADMIN) as transaction:
        for package_id in ("p1", "p2"):
            create_package(transaction, PackageTerms(**THOUSAND), package_id)
    with pytest.raises(Refused) as refused, control.transaction(ADMIN) as transaction:
        create_package(transaction, PackageTerms(**THOUSAND), "p3")
    assert refused.value.code == "too_many_packages"
    with control.transaction(ADMIN) as transaction:
        retire_package(transaction, "p1")
        create_package(transaction, PackageTerms(**THOUSAND), "p3")
    with pytest.raises(Refused), control.transaction(ADMIN) as transaction:
        restore_package(transaction, "p1")
