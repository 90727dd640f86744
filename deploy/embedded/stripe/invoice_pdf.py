"""An invoice as PDF."""

from fpdf import FPDF, XPos, YPos

from deploy.embedded.stripe.money import day, money
from deploy.embedded.stripe.store import Thing

NOTICE = "Made by a stand-in for Stripe: no money moved."
LINE_MM, WIDTH_MM, AMOUNT_MM, QUANTITY_MM = 7, 190, 35, 25
INK, SOFT = (26, 31, 54), (105, 115, 134)


def invoice_pdf(invoice: Thing) -> bytes:
    """One page for as many lines as fit it, more for more."""
    pdf = FPDF(format="A4")
    pdf.set_title(f"Invoice {invoice['number']}")
    pdf.add_page()
    _text(pdf, "Invoice", size=24, bold=True, height=14)
    facts = [("Invoice number", invoice["number"]), ("Date", day(invoice["effective_at"]))]
    if paid_s := invoice["status_transitions"]["paid_at"]:
        facts.append(("Date paid", day(paid_s)))
    facts += [
        ("From", invoice["account_name"]),
        ("Bill to", invoice["customer_name"] or ""),
        ("", invoice["customer_email"] or ""),
    ]
    for name, value in facts:
        if value:
            _pair(pdf, name, str(value))
    pdf.ln(6)
    due = invoice["amount_remaining"] if invoice["status"] != "void" else 0
    state = "paid" if invoice["status"] == "paid" else f"due, {invoice['status']}"
    _text(
        pdf,
        f"{money(invoice['total'], invoice['currency'])} {state}",
        size=15,
        bold=True,
        height=12,
    )
    pdf.ln(2)
    _row(pdf, ("Description", "Quantity", "Amount"), soft=True)
    for line in invoice["lines"]["data"]:
        amount = money(line["amount"], line["currency"])
        _row(pdf, (line["description"], str(line["quantity"]), amount))
        period = line["period"]
        if period["end"] > period["start"]:
            _row(pdf, (f"{day(period['start'])} to {day(period['end'])}", "", ""), soft=True)
    pdf.ln(2)
    for name, sum_minor in (
        ("Total", invoice["total"]),
        ("Amount paid", invoice["amount_paid"]),
        ("Amount due", due),
    ):
        _row(pdf, ("", name, money(sum_minor, invoice["currency"])))
    pdf.ln(10)
    _text(pdf, NOTICE, size=9, soft=True)
    return bytes(pdf.output())


def _text(
    pdf: FPDF,
    text: str,
    *,
    size: int = 11,
    bold: bool = False,
    soft: bool = False,
    height: int = LINE_MM,
) -> None:
    _pen(pdf, size=size, bold=bold, soft=soft)
    pdf.multi_cell(WIDTH_MM, height, _plain(text), new_x=XPos.LMARGIN, new_y=YPos.NEXT)


def _pair(pdf: FPDF, name: str, value: str) -> None:
    _pen(pdf, soft=True)
    pdf.cell(40, LINE_MM, name)
    _pen(pdf)
    pdf.cell(0, LINE_MM, _plain(value), new_x=XPos.LMARGIN, new_y=YPos.NEXT)


def _row(pdf: FPDF, cells: tuple[str, str, str], *, soft: bool = False) -> None:
    _pen(pdf, soft=soft)
    description, quantity, amount = (_plain(cell) for cell in cells)
    pdf.cell(WIDTH_MM - AMOUNT_MM - QUANTITY_MM, LINE_MM, description)
    pdf.cell(QUANTITY_MM, LINE_MM, quantity, align="R")
    pdf.cell(AMOUNT_MM, LINE_MM, amount, align="R", new_x=XPos.LMARGIN, new_y=YPos.NEXT)


def _pen(pdf: FPDF, *, size: int = 11, bold: bool = False, soft: bool = False) -> None:
    pdf.set_font("Helvetica", style="B" if bold else "", size=size)
    pdf.set_text_color(*(SOFT if soft else INK))


def _plain(text: str) -> str:
    """The letters that the PDF's built-in fonts have."""
    return text.replace("€", "EUR ").encode("latin-1", "replace").decode("latin-1")
