"""The page that a buyer sees who comes back from a checkout, where no other page was named.

It shows nothing of the purchase, since whoever follows a link has no key: it says what happens now.
"""

from typing import Final

from fastapi import APIRouter
from starlette.responses import HTMLResponse

from api.payments.providers import RETURN_PATH

router = APIRouter(include_in_schema=False)

PAGE: Final = """\
<!doctype html>
<html lang="en">
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>Back from the checkout</title>
<h1>Back from the checkout</h1>
<p>If you paid, the payment is being confirmed, and the credits can be used within seconds.
If you left without paying, nothing was charged.</p>
<p>You can close this page.</p>
</html>
"""


@router.get(RETURN_PATH)
async def returned() -> HTMLResponse:
    """The same for everybody, whatever the address says behind its `?`."""
    return HTMLResponse(PAGE)
