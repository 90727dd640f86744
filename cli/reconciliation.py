"""`metering credits reconcile`: everything that was paid elsewhere, compared and mended."""

import asyncio
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cli.configuration import load_settings
from cli.errors import FAILED, Failure

if TYPE_CHECKING:
    from api.options import PaymentOptions
    from api.payments.reconcile import Report
    from schemas.settings import Settings


def reconcile(
    since: Annotated[
        datetime | None,
        typer.Option(help="Everything since then, UTC. Default: since the last time."),
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Say what would be done, and do nothing.")
    ] = False,
) -> None:
    """Compare with everything that Stripe and the partners changed, and mend it; exit 1 where
    something is left for a person. May run beside the API."""
    from cli.api import load_payment_options

    settings, options = load_settings(), load_payment_options()
    begin = since.replace(tzinfo=UTC) if since is not None else None
    reports = asyncio.run(_reconcile(settings, options, begin, dry_run=dry_run))
    if not reports:
        raise Failure(
            "nobody can be paid by here: set METERING_STRIPE_API_KEY or METERING_PARTNERS_FILE"
        )
    for report in reports:
        for line in lines_of(report, dry_run=dry_run):
            typer.echo(line)
    if any(report.unmatched or report.failures for report in reports):
        raise typer.Exit(FAILED)


async def _reconcile(
    settings: "Settings", options: "PaymentOptions", since: datetime | None, *, dry_run: bool
) -> "list[Report]":
    from api.payments.desk import make_desk
    from cli.api import load_options, partners_of
    from cli.control import opened

    with opened(settings) as control:
        address, partners = load_options().base_url, partners_of(settings)
        desk = make_desk(control, options, address, partners, is_rehearsal=dry_run)
        try:
            return [await each.run(since) for each in desk.reconciliations]
        finally:
            await desk.stop()


def lines_of(report: "Report", *, dry_run: bool) -> list[str]:
    """What was found, a line each; the last one counts."""
    parts: tuple[tuple[str, list[Any]], ...] = (
        ("would mend" if dry_run else "mended", report.differences),
        ("unmatched", report.unmatched),
        ("failed", report.failures),
    )
    lines = [f"{word}  {one}" for word, found in parts for one in found]
    counts = ", ".join(f"{len(found)} {word}" for word, found in parts)
    since = f"{report.since:%Y-%m-%d %H:%M} UTC"
    return [*lines, f"{report.provider} since {since}: {report.looked_at} looked at, {counts}"]
