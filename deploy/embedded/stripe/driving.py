"""Drives a stand-in: what a customer, a bank, the dashboard or time would do. Blocks its thread."""

from collections.abc import Sequence
from typing import Any, Final

import httpx

TIMEOUT_S: Final = 60.0
TOKEN_HEADER: Final = "Stripe-Stand-In-Token"  # noqa: S105 - its name

Answer = dict[str, Any]


class StripeControl:
    """The control endpoints of the stand-in at this address. Raises `httpx.HTTPStatusError` with
    its answer where something is not possible."""

    def __init__(self, url: str, token: str) -> None:
        self._client = httpx.Client(
            base_url=f"{url}/_control",
            headers={TOKEN_HEADER: token},
            timeout=TIMEOUT_S,
            trust_env=False,
        )

    def close(self) -> None:
        self._client.close()

    # Time

    def now_s(self) -> int:
        return int(self.state()["now_s"])

    def advance(self, seconds: int) -> Answer:
        """Move the clock; what is due on the way happens on the way, in order."""
        return self.post("/clock", advance_s=seconds)

    def advance_to(self, instant_s: int) -> Answer:
        return self.post("/clock", advance_to_s=instant_s)

    def freeze(self) -> Answer:
        """The clock moves only when it is moved."""
        return self.post("/clock", frozen=True)

    # What customers and banks do

    def pay(self, session: str, outcome: str = "succeeded", **further: Any) -> Answer:
        """The hosted page: `succeeded`, `failed` (declined), `processing` (arrives later)."""
        return self.post(f"/checkout/{session}/pay", outcome=outcome, **further)

    def settle(self, session: str, *, succeeds: bool) -> Answer:
        """What was `processing` arrives, or is sent back."""
        return self.post(f"/checkout/{session}/settle", succeeds=succeeds)

    def settle_invoice(self, invoice: str, *, succeeds: bool) -> Answer:
        return self.post(f"/invoices/{invoice}/settle", succeeds=succeeds)

    def pay_invoice(self, invoice: str, amounts: Sequence[int], **further: Any) -> Answer:
        """By several payments; with `fails_after`, only so many of them arrive."""
        return self.post(f"/invoices/{invoice}/pay", amounts=list(amounts), **further)

    def next_payments(
        self, outcome: str = "failed", times: int = 1, customer: str = "*", **further: Any
    ) -> Answer:
        """How the next payments of renewals end; after that they succeed again."""
        return self.post("/payments", outcome=outcome, times=times, customer=customer, **further)

    def dunning(self, **settings: Any) -> Answer:
        """See `subscriptions.DUNNING`."""
        return self.post("/dunning", **settings)

    def dispute(self, charge: str, amount: int | None = None, reason: str = "fraudulent") -> Answer:
        return self.post(f"/charges/{charge}/dispute", amount=amount, reason=reason)

    def win_dispute(self, dispute: str) -> Answer:
        return self.post(f"/disputes/{dispute}/won")

    def lose_dispute(self, dispute: str) -> Answer:
        return self.post(f"/disputes/{dispute}/lost")

    def fail_refund(self, refund: str) -> Answer:
        return self.post(f"/refunds/{refund}/fail")

    # What can go wrong

    def change(self, identifier: str, event: str | None = None, **changes: Any) -> Answer:
        """Put anything into an object, with an event of that type or without one."""
        return self.post(f"/objects/{identifier}", event=event, changes=changes)

    def faults(self, *faults: Answer) -> Answer:
        """`{"kind": "error" | "lost" | "rate_limited", "path", "method", "times"}`; none: end."""
        return self.post("/faults", faults=list(faults))

    def webhooks_to(self, url: str, secret: str) -> Answer:
        return self.post("/webhooks/endpoint", url=url, secret=secret)

    def no_webhooks(self) -> Answer:
        return self.post("/webhooks/endpoint")

    def webhook_rules(self, *rules: Answer, **settings: Any) -> Answer:
        """See `webhooks.py`. What is not named goes back to its default."""
        return self.post("/webhooks/rules", rules=list(rules), **settings)

    def send(self, event: str, *, forged: bool = False) -> Answer:
        return self.post("/webhooks/send", event=event, forged=forged)

    def flush(self) -> Answer:
        """Deliver what is due now; returns when each was tried once."""
        return self.post("/webhooks/flush")

    # What there is

    def state(self) -> Answer:
        return self._answer(self._client.get("/state"))

    def object(self, identifier: str) -> Answer:
        return self._answer(self._client.get(f"/objects/{identifier}"))

    def all(self, kind: str) -> list[Answer]:
        """Of a kind, as `invoice` or `event`; oldest first."""
        found: list[Answer] = self._answer(self._client.get(f"/kinds/{kind}"))["data"]
        return found

    def post(self, path: str, **given: Any) -> Answer:
        return self._answer(self._client.post(path, json=given))

    @staticmethod
    def _answer(answer: httpx.Response) -> Answer:
        if answer.is_error:
            raise httpx.HTTPStatusError(
                f"{answer.status_code} {answer.request.url.path}: {answer.text}",
                request=answer.request,
                response=answer,
            )
        held: Answer = answer.json()
        return held
