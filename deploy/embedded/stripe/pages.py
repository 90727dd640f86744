"""The hosted pages: checkout, invoices, the billing portal, receipts."""

from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, Final

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from starlette.requests import Request
from starlette.responses import HTMLResponse, RedirectResponse, Response
from starlette.routing import Route

from deploy.embedded.stripe import checkout, invoices, payments, portal, subscriptions
from deploy.embedded.stripe.api import is_local
from deploy.embedded.stripe.invoice_pdf import invoice_pdf
from deploy.embedded.stripe.money import day, moment, money
from deploy.embedded.stripe.parameters import parse_form
from deploy.embedded.stripe.problems import Problem
from deploy.embedded.stripe.store import Thing
from deploy.embedded.stripe.world import World

FORM_BYTES_MAX: Final = 10_000
DECLINED: Final = "Your card was declined. Try another one."
HEADERS: Final = {
    "Content-Security-Policy": (
        "default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; frame-ancestors 'none'"
    ),
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "Cache-Control": "no-store",
}
PAYMENTS: Final = {
    "pay": payments.SUCCEEDED,
    "fail": payments.FAILED,
    "later": payments.PROCESSING,
}


class Pages:
    def __init__(self, world: World, port: int) -> None:
        self._world = world
        self._port = port
        self._templates = Environment(
            loader=FileSystemLoader(Path(__file__).with_name("templates")),
            autoescape=True,
            undefined=StrictUndefined,
        )
        self._templates.globals.update(money=money, day=day, moment=moment)

    def routes(self) -> list[Route]:
        pages = {
            "/c/pay/{id}": (self._checkout, ["GET", "POST"]),
            "/i/{id}": (self._invoice, ["GET", "POST"]),
            "/i/{id}/pdf": (self._pdf, ["GET"]),
            "/p/session/{id}": (self._portal, ["GET", "POST"]),
            "/receipts/{id}": (self._receipt, ["GET"]),
        }
        return [
            Route(path, self._guarded(page), methods=methods)
            for path, (page, methods) in pages.items()
        ]

    def _guarded(
        self, page: Callable[[Request], Awaitable[Response]]
    ) -> Callable[[Request], Awaitable[Response]]:
        async def endpoint(request: Request) -> Response:
            if not is_local(request, self._port):
                return self._ended("Not from here", "This page is for this machine only.", 403)
            try:
                return await page(request)
            except Problem as problem:
                return self._ended("That is not possible", str(problem), problem.status)

        return endpoint

    async def _checkout(self, request: Request) -> Response:
        session = self._world.get("checkout.session", request.path_params["id"], status=404)
        if request.method == "GET":
            return self._session_page(session)
        form = await _form(request)
        action = form.get("action", "")
        if action in ("arrive", "bounce"):
            with self._world.change():
                checkout.settle(self._world, session, succeeds=action == "arrive")
            return self._session_page(session)
        if action not in PAYMENTS:
            raise Problem("There is no such button.")
        with self._world.change():
            quantity = str(form.get("quantity", ""))
            if quantity.isdecimal() and len(quantity) < 10:
                items = checkout.line_items(self._world, session)
                if int(quantity) != items[0]["quantity"]:
                    checkout.change_quantity(self._world, session, int(quantity))
            checkout.pay(self._world, session, PAYMENTS[action])
        if session["status"] == "open":
            return self._session_page(session, DECLINED, status=402)
        return RedirectResponse(checkout.returning(session, session["success_url"]), 303)

    def _session_page(self, session: Thing, problem: str = "", status: int = 200) -> Response:
        if session["status"] == "expired":
            return self._ended("This page has expired", "Nothing was paid.", 410)
        if session["status"] == "complete":
            return self._completed(session)
        world = self._world
        items = [
            {**item, "about": (world.store.find(item["price"]["product"]) or {})["description"]}
            for item in checkout.line_items(world, session)
        ]
        aside = world.store.aside(session["id"])
        data = aside["payment_intent_data"] or aside["subscription_data"]
        customer = world.store.find(session["customer"] or "")
        recurring = items[0]["price"]["recurring"]
        leave = session["cancel_url"] and checkout.returning(session, session["cancel_url"])
        adjustable = items[0]["adjustable_quantity"]
        return self._page(
            "checkout.html",
            status,
            session=session,
            items=items,
            customer=customer,
            description=data.get("description"),
            email=(customer or {}).get("email") or session["customer_email"] or "no address given",
            every=f"every {recurring['interval']}" if recurring else "",
            leave=leave,
            adjustable=adjustable if adjustable and adjustable["enabled"] else None,
            problem=problem,
        )

    def _completed(self, session: Thing) -> Response:
        back = checkout.returning(session, session["success_url"])
        if session["payment_status"] == "paid":
            return self._ended("Paid", "Thank you. This was paid.", back=back)
        waits = self._is_processing(session)
        text = "The bank debit is on its way." if waits else "The bank sent the debit back."
        return self._ended("Not paid yet" if waits else "Not paid", text, back=back, waits=waits)

    def _is_processing(self, session: Thing) -> bool:
        if session["mode"] == "payment":
            intent = self._world.get("payment_intent", session["payment_intent"])
        else:
            invoice = self._world.get("invoice", session["invoice"])
            payment = invoices.default_payment(self._world, invoice)
            intent = self._world.get("payment_intent", payment["payment"]["payment_intent"])
        return bool(intent["status"] == "processing")

    async def _invoice(self, request: Request) -> Response:
        invoice = self._world.get("invoice", request.path_params["id"], status=404)
        problem = ""
        if request.method == "POST" and invoice["status"] in invoices.PAYABLE:
            with self._world.change():
                subscriptions.settled(self._world, invoice, payments.SUCCEEDED)
        return self._page("invoice.html", invoice=invoice, problem=problem)

    async def _pdf(self, request: Request) -> Response:
        invoice = self._world.get("invoice", request.path_params["id"], status=404)
        if invoice["number"] is None:
            raise Problem("A draft has no PDF.", status=404)
        name = f"Invoice-{invoice['number']}.pdf"
        return Response(
            invoice_pdf(invoice),
            media_type="application/pdf",
            headers={**HEADERS, "Content-Disposition": f'inline; filename="{name}"'},
        )

    async def _portal(self, request: Request) -> Response:
        world = self._world
        session = world.get("billing_portal.session", request.path_params["id"], status=404)
        if world.now_s() - session["created"] > portal.VALID_S:
            return self._ended("This page has expired", "Open it again from where you came.", 410)
        customer = world.get("customer", session["customer"])
        if request.method == "POST":
            form = await _form(request)
            subscription = world.get("subscription", str(form.get("subscription", "")), status=404)
            if subscription["customer"] != customer["id"]:
                raise Problem("There is no such subscription here.", status=404)
            ends = form.get("action") == "cancel"
            with world.change():
                subscriptions.update(
                    world, {"id": subscription["id"]}, {"cancel_at_period_end": ends}
                )
        return self._page("portal.html", back=session["return_url"], **self._bill(customer))

    def _bill(self, customer: Thing) -> dict[str, Any]:
        held = self._world.all("subscription", customer=customer["id"])[::-1]
        billed = self._world.all("invoice", customer=customer["id"])[::-1]
        return {
            "customer": customer,
            "subscriptions": [
                {
                    **subscription,
                    "period_end": subscriptions.current_period(subscription)[1],
                    "words": subscriptions.in_words(self._world, subscription),
                }
                for subscription in held
                if subscription["status"] not in subscriptions.ENDED
            ],
            "invoices": [invoice for invoice in billed if invoice["number"]],
        }

    async def _receipt(self, request: Request) -> Response:
        charge = self._world.get("charge", request.path_params["id"], status=404)
        paid = money(charge["amount"], charge["currency"])
        return self._ended("Receipt", f"{paid} paid on {day(charge['created'])}.")

    def _ended(
        self, heading: str, text: str, status: int = 200, *, back: str = "", waits: bool = False
    ) -> Response:
        return self._page("ended.html", status, heading=heading, text=text, back=back, waits=waits)

    def _page(self, template: str, status: int = 200, **values: Any) -> Response:
        return HTMLResponse(
            self._templates.get_template(template).render(**values), status, HEADERS
        )


async def _form(request: Request) -> Thing:
    held = b""
    async for piece in request.stream():
        held += piece
        if len(held) > FORM_BYTES_MAX:
            raise Problem("The form is too large.", status=413)
    return parse_form(held.decode("utf-8", "replace"))
