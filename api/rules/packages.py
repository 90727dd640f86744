"""Packages: what the operator sells, once or by the month. What was sold stays as it was."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, Final

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from api.errors import Refused, conflict, invalid, not_found
from api.ids import new_id
from api.rules.change import Transaction
from api.rules.currencies import check_currency, check_price
from api.rules.names import clean_id, clean_name
from api.storage.purchases import Package
from schemas.records import MICRO

CREDITS_MICRO_MAX: Final = 1_000_000_000 * MICRO
"""A thousand million credits: also what a pool has after many of the largest purchases is an amount
of the ledger."""
PRICE_MINOR_MAX: Final = 10**12
"""More than any provider charges at once; and the largest purchase is far from 64 bits."""
PACKAGES_MAX: Final = 200
"""That are sold at a time: what a buyer can still choose from."""


@dataclass(frozen=True, slots=True)
class PackageTerms:
    """What a package is: credits in micro-credits, and the price of one (a month, where it is sold
    monthly) in minor units of the currency. Stripe's price ids are only given where the operator
    made the prices there; else the price is sent with each sale."""

    name: str
    credits_micro: int
    price_minor: int
    currency: str
    sold_one_time: bool = True
    sold_monthly: bool = False
    stripe_one_time_price_id: str | None = None
    stripe_monthly_price_id: str | None = None

    def check(self) -> None:
        """Raises Refused (400) where nobody can sell this."""
        _check_range(self.credits_micro, CREDITS_MICRO_MAX, "credits_micro", "micro-credits")
        _check_range(self.price_minor, PRICE_MINOR_MAX, "price_minor", "of the minor unit")
        check_currency(self.currency)
        check_price(self.price_minor, self.currency)
        if not (self.sold_one_time or self.sold_monthly):
            raise invalid(
                "The package would be sold in no way.",
                "sold_one_time",
                "Sell it one-time, monthly or both; or retire it.",
            )
        for where in ("stripe_one_time_price_id", "stripe_monthly_price_id"):
            price_id = getattr(self, where)
            if price_id is not None:
                clean_id(price_id, where)


def _check_range(number: int, most: int, where: str, unit: str) -> None:
    if not 1 <= number <= most:
        raise invalid(f"This must be 1 to {most} {unit}.", where)


def create_package(
    transaction: Transaction, terms: PackageTerms, package_id: str | None = None
) -> Package:
    """A new package. Raises Refused (409) where the id is taken, or too many are sold."""
    terms.check()
    chosen = clean_id(package_id, "id") if package_id else new_id("pkg")
    if transaction.session.get(Package, chosen) is not None:
        raise conflict(
            "package_exists",
            f"There is, or was, a package {chosen!r}.",
            "id",
            "Change that package, or choose another id.",
        )
    _require_room(transaction.session)
    now = transaction.clock()
    package = Package(id=chosen, created_at=now, updated_at=now, **_columns(terms))
    transaction.session.add(package)
    transaction.session.flush()
    transaction.audit("package.create", ("package", chosen), None, audit_fields(package))
    return package


def change_package(transaction: Transaction, package_id: str, changes: dict[str, Any]) -> Package:
    """Other terms from the next sale on; `changes` are fields of `PackageTerms`.

    Raises Refused: 404 for an unknown package, 409 where the price changes while Stripe's price
    ids stay, which would go on charging the old one.
    """
    package = get_package(transaction.session, package_id)
    before = audit_fields(package)
    former = terms_of(package)
    terms = PackageTerms(**asdict(former) | changes)
    if package.retired_at is None or terms != former:
        terms.check()
    _refuse_stale_prices(former, terms, changes)
    for name, value in _columns(terms).items():
        setattr(package, name, value)
    return _changed(transaction, package, "package.change", before)


def retire_package(transaction: Transaction, package_id: str) -> Package:
    """Sells it no more; subscriptions go on. Again does nothing."""
    package = get_package(transaction.session, package_id)
    before = audit_fields(package)
    package.retired_at = package.retired_at or transaction.clock()
    return _changed(transaction, package, "package.retire", before)


def restore_package(transaction: Transaction, package_id: str) -> Package:
    """Sells a retired package again. Raises Refused (409) where too many are sold."""
    package = get_package(transaction.session, package_id)
    before = audit_fields(package)
    if package.retired_at is not None:
        _require_room(transaction.session)
        terms_of(package).check()
        package.retired_at = None
    return _changed(transaction, package, "package.restore", before)


def _changed(
    transaction: Transaction, package: Package, action: str, before: dict[str, object]
) -> Package:
    after = audit_fields(package)
    if after != before:
        package.updated_at = transaction.clock()
        transaction.session.flush()
        transaction.audit(action, ("package", package.id), before, after)
    return package


def get_package(session: Session, package_id: str) -> Package:
    """Raises Refused (404) where there is none."""
    package = session.get(Package, package_id, with_for_update=True)
    if package is None:
        raise not_found("package", package_id, "package_id")
    return package


def _require_room(session: Session) -> None:
    query = select(func.count()).select_from(Package).where(Package.retired_at.is_(None))
    if (session.scalar(query) or 0) >= PACKAGES_MAX:
        raise conflict(
            "too_many_packages",
            f"At most {PACKAGES_MAX} packages are sold at a time.",
            "id",
            "Retire packages that are not needed any more.",
        )


def _refuse_stale_prices(
    former: PackageTerms, terms: PackageTerms, changes: dict[str, Any]
) -> None:
    if (former.price_minor, former.currency) == (terms.price_minor, terms.currency):
        return
    for where in ("stripe_one_time_price_id", "stripe_monthly_price_id"):
        if getattr(former, where) is not None and where not in changes:
            raise conflict(
                "stripe_price_kept",
                "A price of Stripe cannot change, so it would go on charging the old one.",
                where,
                "Give the id of a new price with the new price, or null.",
            )


def terms_of(package: Package) -> PackageTerms:
    """What is sold, without id, times and whether it still is."""
    return PackageTerms(**{name: getattr(package, name) for name in PackageTerms.__slots__})


def _columns(terms: PackageTerms) -> dict[str, Any]:
    return asdict(terms) | {"name": clean_name(terms.name)}


def audit_fields(package: Package) -> dict[str, object]:
    """What the audit log says of a package."""
    return asdict(terms_of(package)) | {"retired": package.retired_at is not None}


def sold_packages(session: Session, currency: str) -> Sequence[Package]:
    """What can be bought in a currency now, the smallest first."""
    return session.scalars(
        select(Package)
        .where(Package.retired_at.is_(None), Package.currency == currency)
        .order_by(Package.credits_micro, Package.id)
        .limit(PACKAGES_MAX)
    ).all()


def package_to_buy(session: Session, package_id: str, kind: str, currency: str) -> Package:
    """Raises Refused: 404 for an unknown package, 409 where it is not sold in this way."""
    package = session.get(Package, package_id)
    if package is None:
        raise not_found("package", package_id, "package_id")
    if package.retired_at is not None:
        raise _not_sold("package_retired", f"{package.name!r} is not sold any more.")
    if package.currency != currency:
        raise _not_sold(
            "currency_mismatch",
            f"{package.name!r} is sold in {package.currency}, the organization pays in {currency}.",
        )
    if not (package.sold_monthly if kind == "monthly" else package.sold_one_time):
        way = "monthly" if kind == "monthly" else "one-time"
        raise _not_sold("package_not_sold_so", f"{package.name!r} is not sold {way}.")
    return package


def _not_sold(code: str, message: str) -> Refused:
    what_to_do = "Choose one of the packages that the organization can buy."
    return conflict(code, message, "package_id", what_to_do)
