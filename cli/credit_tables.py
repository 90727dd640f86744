"""What `metering credits` shows: a pool's credits, and its invoices, for people and programs."""

import json
from collections.abc import Sequence
from typing import Any, Final

from api.rules.currencies import money_text
from api.web.shapes.billing import Invoice
from cli.tables import number, table, text
from schemas.spreadsheets import csv_lines, guarded
from warehouse.amounts import micro_text

UNKNOWN: Final = "?"
KINDS: Final = {"monthly": "Monthly", "one_time": "One-time"}
FIGURES: Final = ("total_micro", "used_micro", "remaining_micro")


def billing_text(answer: dict[str, Any], format_: str) -> str:
    """A pool as the API's billing answer has it; ends with a newline."""
    if format_ == "json":
        return _json(answer)
    rows = [
        [
            kind,
            *(_credits(answer[kind][figure]) for figure in FIGURES),
            str(answer[kind]["packages"]),
            answer[kind]["next_reset_at"] or "",
        ]
        for kind in KINDS
    ]
    if format_ == "csv":
        header = ["kind", "total", "used", "remaining", "packages", "next_reset_at"]
        return csv_lines([header, *rows])
    columns = [
        text("Credits"),
        number("Total"),
        number("Used"),
        number("Remaining"),
        number("Packages"),
        text("Next reset (UTC)"),
    ]
    shown = [[KINDS[kind], *figures, _minute(reset)] for kind, *figures, reset in rows]
    lines = [*_heading(answer), "", *table(columns, shown)]
    if answer["debt_micro"]:
        lines.append(f"Debt, which later credits repay first: {_credits(answer['debt_micro'])}")
    if answer["figures_missing"]:
        lines.append(f"The figures are missing: {answer['figures_missing']}")
    return "\n".join([*lines, *_subscriptions(answer), *_waiting(answer), ""])


def _heading(answer: dict[str, Any]) -> list[str]:
    pool, profile = answer["pool"], answer["profile"]
    paid_by = f"paid by {profile['provider']}" if profile else "billing not enabled"
    return [f"{pool['name']} ({pool['kind']} {pool['id']}), {paid_by}"]


def _subscriptions(answer: dict[str, Any]) -> list[str]:
    rows = [
        [
            row["id"],
            f"{row['quantity']} x {row['package_name']}",
            row["amount_text"],
            row["status"],
            f"{'ends' if row['cancel_at_period_end'] else 'renews'} "
            f"{_minute(row['current_period_end']) or UNKNOWN}",
        ]
        for row in answer["subscriptions"]
    ]
    columns = [
        text("Subscription"),
        text("Packages"),
        text("A month"),
        text("State"),
        text("Next (UTC)"),
    ]
    return ["", *table(columns, rows)] if rows else []


def _waiting(answer: dict[str, Any]) -> list[str]:
    rows = [
        [
            row["id"],
            f"{row['quantity']} x {row['package_name']}",
            row["amount_text"],
            row["checkout_url"] or "",
        ]
        for row in answer["waiting"]
    ]
    columns = [text("Waits for payment"), text("Packages"), text("Amount"), text("Pay at")]
    return ["", *table(columns, rows)] if rows else []


def invoices_text(invoices: Sequence[dict[str, Any]], format_: str) -> str:
    """Paid invoices as the API shows them; ends with a newline."""
    if format_ == "json":
        return _json(list(invoices))
    if format_ == "csv":
        header = list(Invoice.model_fields)
        rows = [[guarded(_cell(row[name])) for name in header] for row in invoices]
        return csv_lines([header, *rows])
    rows = [
        [
            _minute(row["paid_at"]),
            row["number"],
            f"{row['quantity']} x {row['package_name']}, {KINDS[row['kind']].lower()}",
            _credits(row["credits_micro"]),
            row["amount_text"],
            money_text(row["refunded_minor"], row["currency"]) if row["refunded_minor"] else "",
            row["hosted_invoice_url"] or "",
        ]
        for row in invoices
    ]
    columns = [
        text("Paid (UTC)"),
        text("Number"),
        text("What"),
        number("Credits"),
        text("Amount"),
        text("Refunded"),
        text("Invoice"),
    ]
    return "\n".join([*(table(columns, rows) if rows else ["No paid invoices."]), ""])


def _credits(micro: int | None) -> str:
    return UNKNOWN if micro is None else micro_text(micro)


def _minute(moment: str | None) -> str:
    """A time as the API writes it (`2026-11-21T21:02:56.000Z`), for people: to the minute."""
    return moment[:16].replace("T", " ") if moment else ""


def _json(value: Any) -> str:
    return json.dumps(value, indent=2, ensure_ascii=False) + "\n"


def _cell(value: object) -> str:
    return "" if value is None else str(value)
