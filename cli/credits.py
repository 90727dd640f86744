"""`metering credits`: what a group or website has, buys and has bought."""

import asyncio
from typing import TYPE_CHECKING, Annotated, TypeVar

import typer

from cli.command_line import Commands, OrganizationOption, one_of
from cli.configuration import load_settings
from cli.errors import Failure
from cli.reconciliation import reconcile

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from sqlalchemy.orm import Session

    from api.payments.desk import Desk
    from api.rules.change import Control
    from api.rules.purchases import PurchaseKind
    from schemas.records import PoolKind

app = Commands("Credits that are bought.")
app.command()(reconcile)
Result = TypeVar("Result")

GroupOption = Annotated[str, typer.Option("--group", metavar="ID", help="A group, by name or id.")]
WebsiteOption = Annotated[str, typer.Option("--website", metavar="ID", help="Or a website.")]


FormatOption = Annotated[
    str,
    typer.Option(
        "--format",
        parser=one_of("format", lambda: ("table", "csv", "json")),
        metavar="table|csv|json",
    ),
]


@app.command()
def show(
    organization: OrganizationOption,
    group: GroupOption = "",
    website: WebsiteOption = "",
    format_: FormatOption = "table",
) -> None:
    """What is left, what runs by the month, and what waits for its payment."""
    from api import reading
    from api.reading.billing import pool_name
    from api.reading.spend import Spend
    from api.web.shown_billing import shown_billing, with_figures
    from cli.control import opened
    from cli.credit_tables import billing_text

    settings = load_settings()
    with opened(settings) as control, control.store.read() as session:
        currency = reading.organization(session, organization).currency
        kind, pool_id = _pool(session, organization, group, website)
        name = pool_name(session, organization, kind, pool_id)
        bought = shown_billing(session, organization, kind, pool_id)
        now = control.clock()
    pool = {"kind": kind, "id": pool_id, "name": name}
    spend = Spend(settings)
    try:
        answer = {"pool": pool, "currency": currency} | bought
        answer = with_figures(answer, spend, (organization, kind, pool_id), now)
    finally:
        spend.close()
    typer.echo(billing_text(answer, format_), nl=False)


@app.command()
def history(
    organization: OrganizationOption,
    group: GroupOption = "",
    website: WebsiteOption = "",
    month: Annotated[
        str, typer.Option(metavar="YYYY-MM", help="Of the organization's calendar; default: all.")
    ] = "",
    format_: FormatOption = "table",
) -> None:
    """Paid invoices, newest first, with their pages."""
    from zoneinfo import ZoneInfo

    from api import reading
    from api.reading import billing
    from api.storage.purchases import Invoice
    from api.web.shown_billing import shown_invoice
    from cli.control import opened
    from cli.credit_tables import invoices_text

    with opened(load_settings()) as control, control.store.read() as session:
        zone = ZoneInfo(reading.organization(session, organization).time_zone)
        pool = _pool(session, organization, group, website)
        billing.pool_name(session, organization, *pool)
        span = billing.month_span(month, zone) if month else None
        query = billing.paid_invoices(organization, *pool, span)
        rows = session.execute(query.order_by(Invoice.paid_at.desc(), Invoice.provider_id.desc()))
        invoices = [shown_invoice(*row) for row in rows]
    typer.echo(invoices_text(invoices, format_), nl=False)


@app.command()
def enable(
    organization: OrganizationOption,
    group: GroupOption = "",
    website: WebsiteOption = "",
    standard: Annotated[
        bool, typer.Option("--standard", help="By Stripe, also where a partner charges.")
    ] = False,
) -> None:
    """Enable billing, so that credits can be bought; prints who is paid."""
    from api.payments.providers import provider_for
    from api.rules.billing_profiles import enable_billing
    from cli.control import operator

    async def change(control: "Control", desk: "Desk") -> str:
        with control.change(organization, operator()) as change:
            pool = _pool(change.session, organization, group, website)
            provider = provider_for(desk.payments, change, pool, "standard" if standard else None)
            return enable_billing(change, *pool, provider)[0].provider

    typer.echo(_at_desk(change))


@app.command()
def buy(
    organization: OrganizationOption,
    package: Annotated[str, typer.Argument(help="The package's id: `metering packages list`.")],
    group: GroupOption = "",
    website: WebsiteOption = "",
    quantity: Annotated[int, typer.Option("--quantity", "-n", help="1 to 50 packages.")] = 1,
    monthly: Annotated[bool, typer.Option("--monthly", help="Every month anew.")] = False,
) -> None:
    """Buy packages; prints where to pay them, or that a partner charges them."""
    from api.payments.providers import RETURN_PATH, returns_to
    from api.rules.purchases import Order, create_purchase
    from cli.api import load_options
    from cli.control import operator

    kind: PurchaseKind = "monthly" if monthly else "one_time"
    page = load_options().base_url + RETURN_PATH

    async def order(control: "Control", desk: "Desk") -> str:
        with control.change(organization, operator()) as change:
            pool = _pool(change.session, organization, group, website)
            row = create_purchase(change, *pool, Order(package, kind, quantity))
            till = desk.payments.of(row.provider)
        begun = await till.begin(organization, row.id, returns_to(page, row.id))
        return begun.checkout_url or begun.status

    typer.echo(_at_desk(order))


def _at_desk(do: "Callable[[Control, Desk], Awaitable[Result]]") -> Result:
    """Asks as the API would, with the same settings. An API that runs hears of what is paid."""
    from api.payments.desk import make_desk
    from cli.api import load_options, load_payment_options, partners_of
    from cli.control import opened

    settings = load_settings()
    partners = partners_of(settings)

    async def run(control: "Control") -> Result:
        desk = make_desk(control, load_payment_options(), load_options().base_url, partners)
        try:
            return await do(control, desk)
        finally:
            await desk.stop()

    with opened(settings) as control:
        return asyncio.run(run(control))


def _pool(
    session: "Session", organization_id: str, group: str, website: str
) -> "tuple[PoolKind, str]":
    """The one pool that was named. A group may be named by its name."""
    from cli.group_tables import group_id_of

    if bool(group) == bool(website):
        raise Failure("Name one group (--group) or one website (--website).")
    if website:
        return "website", website
    return "group", group_id_of(session, organization_id, group)
