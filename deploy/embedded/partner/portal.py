"""The portal: what a customer pays for, with the buttons to cancel, resume and settle."""

from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Final

from jinja2 import Environment, FileSystemLoader
from starlette.requests import Request
from starlette.responses import HTMLResponse, RedirectResponse, Response

from deploy.embedded.partner.books import Books
from deploy.embedded.partner.rows import Document, Refusal
from deploy.embedded.partner.shapes import SubscriptionChange

Handler = Callable[[Request], Awaitable[Response]]

PAGES: Final = Environment(
    loader=FileSystemLoader(Path(__file__).with_name("templates")), autoescape=True
)
HEADERS: Final = {
    "Cache-Control": "no-store",
    "Referrer-Policy": "no-referrer",
    "Content-Security-Policy": "default-src 'none'; style-src 'unsafe-inline'; form-action 'self'; "
    "frame-ancestors 'none'",
}


def routes(books: Books) -> list[tuple[str, str, Handler]]:
    """The page and its buttons; the token in the path is what lets somebody in."""

    async def page(request: Request) -> Response:
        purchases = books.portal(request.path_params["token"])
        template = PAGES.get_template("portal.html")
        return HTMLResponse(
            template.render(token=request.path_params["token"], purchases=purchases),
            headers=HEADERS,
        )

    async def press(request: Request) -> Response:
        token, button = request.path_params["token"], request.path_params["button"]
        purchase_id = request.path_params["purchase_id"]
        mine = {one["purchase_id"]: one for one in books.portal(token)}
        if purchase_id not in mine:
            raise Refusal(404, "not_found", "There is no such purchase.")
        _press(books, mine[purchase_id], button)
        return RedirectResponse(f"/portal/{token}", 303)

    return [
        ("GET", "/portal/{token}", page),
        ("POST", "/portal/{token}/{purchase_id}/{button}", press),
    ]


def _press(books: Books, purchase: Document, button: str) -> None:
    newest = purchase["charges"][0]
    if button in ("succeed", "decline"):
        books.finish(newest["charge_id"], "succeeded" if button == "succeed" else "declined")
        return
    subscription = purchase["subscription"]
    if subscription is None or button not in ("cancel", "resume"):
        raise Refusal(404, "not_found", "There is no such button.")
    books.change_subscription(
        SubscriptionChange(
            action="cancel" if button == "cancel" else "resume",
            subscription_id=subscription["subscription_id"],
            purchase_id=purchase["purchase_id"],
            organization_id=newest["organization_id"],
        )
    )
