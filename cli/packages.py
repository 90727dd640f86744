"""`metering packages`: what the operator sells."""

from collections.abc import Iterable
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cli.command_line import Commands, one_of
from cli.configuration import load_settings

if TYPE_CHECKING:
    from api.storage.purchases import Package

app = Commands("Packages of credits that are sold.")
WAYS = {"one-time": (True, False), "monthly": (False, True), "both": (True, True)}


def _ways() -> Iterable[str]:
    return WAYS


PackageArgument = Annotated[str, typer.Argument(metavar="PACKAGE", help="The package's id.")]
Credits = Annotated[str, typer.Option(help="Credits in one package, as 1000 or 0.5.")]
Price = Annotated[str, typer.Option(help="Of one package, as 10.00; a month, if monthly.")]
Currency = Annotated[str, typer.Option(help="Three letters of ISO 4217.")]
Sold = Annotated[
    str, typer.Option(parser=one_of("way to sell", _ways), metavar="WAY", help="|".join(WAYS))
]
OncePrice = Annotated[
    str, typer.Option("--stripe-one-time-price", help="A price that was made in Stripe.")
]
MonthPrice = Annotated[
    str, typer.Option("--stripe-monthly-price", help="A price that was made in Stripe.")
]


@app.command("list")
def list_packages(
    every: Annotated[bool, typer.Option("--all", help="Retired ones too.")] = False,
) -> None:
    """What is sold, the smallest first."""
    from sqlalchemy import select

    from api.rules.currencies import money_text
    from api.storage.purchases import Package
    from cli.control import opened
    from cli.tables import number, table, text
    from warehouse.amounts import micro_text

    with opened(load_settings()) as control, control.store.read() as session:
        query = select(Package).order_by(Package.currency, Package.credits_micro, Package.id)
        rows = [
            [
                row.id,
                row.name,
                micro_text(row.credits_micro),
                money_text(row.price_minor, row.currency),
                _sold(row),
            ]
            for row in session.scalars(query)
            if every or row.retired_at is None
        ]
    columns = [text("ID"), text("Name"), number("Credits"), text("Price"), text("Sold")]
    typer.echo("\n".join(table(columns, rows)) if rows else "Nothing is sold.")


def _sold(row: "Package") -> str:
    if row.retired_at is not None:
        return f"retired {row.retired_at:%Y-%m-%d}"
    ways = {sold: way for way, sold in WAYS.items()}
    return ways[row.sold_one_time, row.sold_monthly]


@app.command()
def create(
    name: Annotated[str, typer.Argument(help="As buyers see it.")],
    credits: Credits,
    price: Price,
    currency: Currency = "USD",
    sold: Sold = "one-time",
    package_id: Annotated[str, typer.Option("--id", help="Default: a new one.")] = "",
    stripe_one_time_price: OncePrice = "",
    stripe_monthly_price: MonthPrice = "",
) -> None:
    """Sell a package; prints its id."""
    from api.rules.currencies import minor_of
    from api.rules.packages import PackageTerms, create_package
    from cli.control import opened, operator

    one_time, monthly = WAYS[sold]
    with opened(load_settings()) as control, control.transaction(operator()) as transaction:
        terms = PackageTerms(
            name,
            _micro(credits),
            minor_of(price, currency),
            currency,
            one_time,
            monthly,
            stripe_one_time_price or None,
            stripe_monthly_price or None,
        )
        row = create_package(transaction, terms, package_id or None)
    typer.echo(row.id)


@app.command()
def change(
    package: PackageArgument,
    name: Annotated[str, typer.Option(help="As buyers see it.")] = "",
    credits: Credits = "",
    price: Price = "",
    currency: Currency = "",
    sold: Annotated[str, typer.Option(metavar="WAY", help="|".join(WAYS))] = "",
    stripe_one_time_price: OncePrice = "",
    stripe_monthly_price: MonthPrice = "",
) -> None:
    """Other terms from the next sale on; what was sold stays as it was sold."""
    from api.rules.currencies import minor_of
    from api.rules.packages import change_package, get_package
    from cli.control import opened, operator

    changes: dict[str, Any] = {
        "name": name,
        "currency": currency,
        "stripe_one_time_price_id": stripe_one_time_price,
        "stripe_monthly_price_id": stripe_monthly_price,
    }
    changes = {field: value for field, value in changes.items() if value}
    if sold:
        if sold not in WAYS:
            raise typer.BadParameter(f"{sold!r} is none of {', '.join(WAYS)}.")
        changes["sold_one_time"], changes["sold_monthly"] = WAYS[sold]
    with opened(load_settings()) as control, control.transaction(operator()) as transaction:
        if credits:
            changes["credits_micro"] = _micro(credits)
        if price:
            former = get_package(transaction.session, package)
            changes["price_minor"] = minor_of(price, currency or former.currency)
        change_package(transaction, package, changes)


@app.command()
def retire(package: PackageArgument) -> None:
    """Sell it no more; subscriptions go on."""
    from api.rules.packages import retire_package
    from cli.control import opened, operator

    with opened(load_settings()) as control, control.transaction(operator()) as transaction:
        retire_package(transaction, package)


@app.command()
def restore(package: PackageArgument) -> None:
    """Sell a retired package again."""
    from api.rules.packages import restore_package
    from cli.control import opened, operator

    with opened(load_settings()) as control, control.transaction(operator()) as transaction:
        restore_package(transaction, package)


def _micro(credits: str) -> int:
    from api.rules.currencies import whole_units
    from warehouse.amounts import MICRO_DIGITS

    return whole_units(credits, MICRO_DIGITS, "credits")
