"""Every request that we make to a partner; `deploy/partner.md` is the contract.

Rules: a request is signed; an answer is bounded and read by its struct; a refusal is believed only
where the contract names its code. Everything else (a time-out, a broken connection, an answer that
nobody can read) means that it is *not known* what happened, and is asked again with the same key.
"""

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from typing import Final, TypeVar
from urllib.parse import quote, urlencode

import httpx
import msgspec

from api.payments.partners import metrics as partner_metrics
from api.payments.partners.answers import PartnerRefused, PartnerUnclear, check_page, read
from api.payments.partners.file import Partner
from api.payments.partners.outward import BadAnswer, OutwardClient, Resolve, resolve
from api.payments.partners.signing import signed_headers
from schemas import partners as contract

VERSION_HEADER: Final = "metering-contract-version"
ATTEMPTS: Final = 3
BACKOFF_S: Final = 0.25
BACKOFF_S_MAX: Final = 8.0
PAGES_MAX: Final = 1_000
PORTAL_LIFE_MAX: Final = timedelta(hours=24)

Body = TypeVar("Body")
Now = Callable[[], datetime]
Sleep = Callable[[float], Awaitable[None]]


def utc_now() -> datetime:
    return datetime.now(UTC)


class PartnerClient:
    """One partner, for as long as the process runs; safe for many tasks of one loop."""

    def __init__(
        self,
        partner: Partner,
        now: Now = utc_now,
        resolve_name: Resolve = resolve,
        sleep: Sleep = asyncio.sleep,
    ) -> None:
        self.partner = partner
        self._now = now
        self._sleep = sleep
        self._secrets = [one.get_secret_value() for one in partner.signing_secrets]
        self._outward = OutwardClient(partner.allow_networks, partner.timeout_s, resolve_name)

    async def close(self) -> None:
        await self._outward.close()

    async def charge(
        self, request: contract.ChargeRequest, attempts: int = ATTEMPTS
    ) -> contract.ChargeAnswer:
        """Asks for the one charge of a purchase; however often it is asked, there is one.

        Raises PartnerRefused where there is none and will be none, and PartnerUnclear.
        """
        return await self._post(
            "charge",
            "/charges",
            request,
            contract.ChargeAnswer,
            key=f"charge:{request.purchase_id}",
            attempts=attempts,
        )

    async def purchase(self, purchase_id: str) -> contract.Purchase | None:
        """All there is about a purchase; None where the partner knows none.

        Raises PartnerUnclear, and PartnerRefused where it does not let us look.
        """
        try:
            found = await self._get(
                "purchase", f"/purchases/{quote(purchase_id, safe='')}", contract.Purchase
            )
        except PartnerRefused as refused:
            if refused.code == "not_found":
                return None
            raise
        if found.purchase_id != purchase_id:
            raise PartnerUnclear("the answer is about another purchase")
        return found

    async def charges_since(self, since: datetime) -> AsyncIterator[contract.Charge]:
        """Every charge that changed at or after this time, oldest change first.

        Raises PartnerRefused, and PartnerUnclear, also where the pages have no end (`PAGES_MAX`).
        """
        parameters = {
            "since": since.astimezone(UTC).isoformat().replace("+00:00", "Z"),
            "limit": str(contract.CHARGES_MAX),
        }
        for _ in range(PAGES_MAX):
            page = await self._get(
                "charges", f"/charges?{urlencode(parameters)}", contract.ChargeList
            )
            for charge in page.charges:
                yield charge
            if not page.next_cursor:
                return
            if page.next_cursor == parameters.get("cursor"):
                raise PartnerUnclear("the same page comes again and again")
            parameters["cursor"] = page.next_cursor
        raise PartnerUnclear(f"more than {PAGES_MAX} pages changed")

    async def change_subscription(
        self, change: contract.SubscriptionChange, key: str
    ) -> contract.Subscription:
        """Cancels or resumes. Raises PartnerRefused and PartnerUnclear."""
        path = f"/subscriptions/{quote(change.subscription_id, safe='')}/{change.action}"
        changed = await self._post(
            change.action, path, change, contract.Subscription, key=key, attempts=ATTEMPTS
        )
        if changed.subscription_id != change.subscription_id:
            raise PartnerUnclear("the answer is about another subscription")
        return changed

    async def portal(
        self, organization_id: str, pool_kind: str, pool_id: str, return_url: str = ""
    ) -> contract.Portal:
        """A short-lived address for the customer's browser; we never open it ourselves.

        Raises PartnerRefused and PartnerUnclear, also where the address may not be shown.
        """
        query = {"organization": organization_id, "pool_kind": pool_kind, "pool": pool_id}
        if return_url:
            query["return_url"] = return_url
        portal = await self._get("portal", f"/portal?{urlencode(query)}", contract.Portal)
        left = portal.expires_at - self._now()
        if not timedelta(0) < left <= PORTAL_LIFE_MAX:
            raise PartnerUnclear("the portal's address has expired, or lives longer than a day")
        check_page(portal.url, self.partner)
        return portal

    async def _get(self, operation: str, target: str, shape: type[Body]) -> Body:
        return await self._repeat(operation, ATTEMPTS, "GET", target, None, shape, "")

    async def _post(
        self,
        operation: str,
        target: str,
        body: msgspec.Struct,
        shape: type[Body],
        *,
        key: str,
        attempts: int,
    ) -> Body:
        text = msgspec.json.encode(body).decode()
        return await self._repeat(operation, attempts, "POST", target, text, shape, key)

    async def _repeat(
        self,
        operation: str,
        attempts: int,
        method: str,
        target: str,
        text: str | None,
        shape: type[Body],
        key: str,
    ) -> Body:
        """Asks until it is known, at most `attempts` times, ever more slowly."""
        was_unclear = False
        for attempt in range(attempts):
            try:
                with self._observed(operation):
                    return await self._once(method, target, text, shape, key)
            except PartnerRefused as refused:
                if was_unclear and method == "POST":
                    # This attempt was refused (by a secret that changed, say); a former one of
                    # which nobody knows may have succeeded.
                    raise PartnerUnclear(
                        f"refused after an unclear attempt: {refused}"
                    ) from refused
                raise
            except PartnerUnclear as unclear:
                was_unclear = True
                if attempt + 1 == attempts:
                    raise
                pause = max(BACKOFF_S * 2**attempt, unclear.retry_after_s)
                await self._sleep(min(pause, BACKOFF_S_MAX))
        raise AssertionError("at least one attempt is made")

    @contextmanager
    def _observed(self, operation: str) -> Iterator[None]:
        labels, began, outcome = (self.partner.name, operation), time.monotonic(), "unclear"
        try:
            yield
            outcome = "ok"
        except PartnerRefused as refused:
            outcome = "absent" if refused.code == "not_found" else "refused"
            raise
        finally:
            partner_metrics.REQUESTS.labels(*labels, outcome).inc()
            partner_metrics.REQUEST_SECONDS.labels(*labels).observe(time.monotonic() - began)

    async def _once(
        self, method: str, target: str, text: str | None, shape: type[Body], key: str
    ) -> Body:
        signed = text if text is not None else f"{method} {target}"
        headers = signed_headers(signed, self._secrets, at=self._now())
        headers[VERSION_HEADER] = str(contract.VERSION)
        headers["user-agent"] = "metering/1"
        if text is not None:
            headers |= {"content-type": "application/json", "idempotency-key": key}
        try:
            answer = await self._outward.ask(
                method,
                self.partner.base + target,
                headers,
                text.encode() if text is not None else None,
            )
        except (httpx.HTTPError, httpx.InvalidURL, TimeoutError, BadAnswer, OSError) as error:
            raise PartnerUnclear(f"{type(error).__name__}: {error}"[:300]) from error
        return read(answer, shape)
