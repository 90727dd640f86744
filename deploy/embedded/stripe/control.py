"""`/_control/`: what only the one who runs the stand-in may do. JSON in, JSON out.

Every request needs the control token in a header of its own, which no web page can send to another
address without being allowed to; nothing here allows it.
"""

import hmac
import json
from collections.abc import Awaitable, Callable
from typing import Any, Final

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from deploy.embedded.stripe import checkout, invoices, jobs, payments, returns, subscriptions
from deploy.embedded.stripe.api import FAULT_KINDS, FAULTS, is_local
from deploy.embedded.stripe.driving import TOKEN_HEADER
from deploy.embedded.stripe.payments import FAILURES, Outcome
from deploy.embedded.stripe.problems import Problem
from deploy.embedded.stripe.store import Thing
from deploy.embedded.stripe.webhooks import ACTIONS, Webhooks
from deploy.embedded.stripe.world import World

BODY_BYTES_MAX: Final = 262_144
MOVE_S_MAX: Final = 10 * 366 * 86_400
DELIVERIES_SHOWN: Final = 1_000


class Control:
    def __init__(self, world: World, webhooks: Webhooks, token: str, port: int) -> None:
        self._world = world
        self._webhooks = webhooks
        self._token = token
        self._port = port

    def routes(self) -> list[Route]:
        changing: dict[str, Callable[[Thing, Thing], Thing]] = {
            "/clock": self._clock,
            "/checkout/{id}/pay": self._pay_session,
            "/checkout/{id}/settle": self._settle_session,
            "/invoices/{id}/pay": self._pay_invoice,
            "/invoices/{id}/settle": self._settle_invoice,
            "/payments": self._order_payments,
            "/charges/{id}/dispute": self._dispute,
            "/disputes/{id}/won": lambda path, given: self._decide(path, won=True),
            "/disputes/{id}/lost": lambda path, given: self._decide(path, won=False),
            "/refunds/{id}/fail": self._fail_refund,
            "/objects/{id}": self._change_object,
            "/dunning": self._dunning,
            "/faults": self._faults,
            "/webhooks/endpoint": self._endpoint,
            "/webhooks/rules": self._rules,
            "/webhooks/send": self._send,
        }
        routes = [
            Route(f"/_control{path}", self._guarded(self._changing(handle)), methods=["POST"])
            for path, handle in changing.items()
        ]
        reading: dict[str, tuple[str, Callable[[Request], Awaitable[Thing]]]] = {
            "/state": ("GET", self._state),
            "/objects/{id}": ("GET", self._object),
            "/kinds/{kind}": ("GET", self._kind),
            "/webhooks/flush": ("POST", self._flush),
        }
        return routes + [
            Route(f"/_control{path}", self._guarded(handle), methods=[method])
            for path, (method, handle) in reading.items()
        ]

    def _guarded(
        self, handle: Callable[[Request], Awaitable[Thing]]
    ) -> Callable[[Request], Awaitable[Response]]:
        async def endpoint(request: Request) -> Response:
            given = request.headers.get(TOKEN_HEADER, "")
            allowed = hmac.compare_digest(given.encode(), self._token.encode())
            if not allowed or not is_local(request, self._port):
                return JSONResponse({"error": f"The header {TOKEN_HEADER} is wrong."}, 403)
            try:
                return JSONResponse(await handle(request))
            except Problem as problem:
                return JSONResponse({"error": problem.error}, problem.status)

        return endpoint

    def _changing(
        self, handle: Callable[[Thing, Thing], Thing]
    ) -> Callable[[Request], Awaitable[Thing]]:
        async def changed(request: Request) -> Thing:
            given = await _json(request)
            try:
                if handle == self._clock:  # its jobs are transactions of their own
                    return handle(request.path_params, given)
                with self._world.change():
                    return handle(request.path_params, given)
            except (KeyError, TypeError, ValueError, AttributeError) as error:
                raise Problem(f"That is not what it takes: {error!r}") from None

        return changed

    def _clock(self, path: Thing, given: Thing) -> Thing:
        """`advance_s` or `advance_to_s`; `frozen` to stop it there, or let it run."""
        now_s = self._world.now_s()
        instant_s = int(given.get("advance_to_s", now_s + int(given.get("advance_s", 0))))
        if not now_s <= instant_s <= now_s + MOVE_S_MAX:
            raise Problem("The clock only moves forward, ten years at a time.")
        frozen = bool(given.get("frozen", self._world.is_frozen))
        done = jobs.move_clock(self._world, instant_s, frozen=frozen)
        return {"now_s": self._world.now_s(), "frozen": frozen, "jobs": done}

    def _pay_session(self, path: Thing, given: Thing) -> Thing:
        session = self._world.get("checkout.session", path["id"], status=404)
        if "quantity" in given:
            checkout.change_quantity(self._world, session, int(given["quantity"]))
        return checkout.pay(self._world, session, _outcome(given))

    def _settle_session(self, path: Thing, given: Thing) -> Thing:
        session = self._world.get("checkout.session", path["id"], status=404)
        return checkout.settle(self._world, session, succeeds=bool(given["succeeds"]))

    def _pay_invoice(self, path: Thing, given: Thing) -> Thing:
        """In several payments; `fails_after`: how many of them arrive before one is declined."""
        world = self._world
        invoice = world.get("invoice", path["id"], status=404)
        if invoice["status"] == "draft":
            invoices.finalize(world, invoice)
        amounts = [int(amount) for amount in given.get("amounts", [invoice["amount_remaining"]])]
        stops_after = int(given.get("fails_after", len(amounts)))
        for number, payment in enumerate(invoices.split(world, invoice, amounts)):
            intent = world.get("payment_intent", payment["payment"]["payment_intent"])
            if number >= stops_after:
                payments.attempt(world, intent, payments.FAILED)
                break
            payments.attempt(world, intent, payments.SUCCEEDED)
            if invoices.received(world, invoice, payment):
                subscriptions.after_success(world, invoice)
        return world.get("invoice", invoice["id"])

    def _settle_invoice(self, path: Thing, given: Thing) -> Thing:
        invoice = self._world.get("invoice", path["id"], status=404)
        subscriptions.settle(self._world, invoice, succeeds=bool(given["succeeds"]))
        return self._world.get("invoice", invoice["id"])

    def _order_payments(self, path: Thing, given: Thing) -> Thing:
        """How the next payments by saved cards end: of one customer, or (`*`) of anyone."""
        outcome = _outcome({"outcome": "failed", **given})
        failures = self._world.store.setting(FAILURES, {})
        failures[str(given.get("customer", "*"))] = {
            "times": int(given.get("times", 1)),
            "status": outcome.status,
            "code": outcome.code,
        }
        self._world.store.set(FAILURES, failures)
        return {"payments": failures}

    def _dispute(self, path: Thing, given: Thing) -> Thing:
        charge = self._world.get("charge", path["id"], status=404)
        amount = given.get("amount")
        return returns.open_dispute(
            self._world,
            charge,
            None if amount is None else int(amount),
            str(given.get("reason", "fraudulent")),
        )

    def _decide(self, path: Thing, *, won: bool) -> Thing:
        dispute = self._world.get("dispute", path["id"], status=404)
        return returns.decide(self._world, dispute, won=won)

    def _fail_refund(self, path: Thing, given: Thing) -> Thing:
        refund = self._world.get("refund", path["id"], status=404)
        returns.fail_refund(self._world, refund)
        return refund

    def _change_object(self, path: Thing, given: Thing) -> Thing:
        """Put anything into an object, with an event of that type or without one."""
        thing = self._world.store.find(path["id"])
        if thing is None:
            raise Problem(f"No such object: {path['id']}", status=404)
        return self._world.update(thing, given.get("event"), **given["changes"])

    def _dunning(self, path: Thing, given: Thing) -> Thing:
        if unknown := set(given) - set(subscriptions.DUNNING):
            raise Problem(f"Unknown: {sorted(unknown)}")
        self._world.store.set("dunning", given)
        return {**subscriptions.DUNNING, **given}

    def _faults(self, path: Thing, given: Thing) -> Thing:
        """Requests that are to go wrong; an empty list of `faults` ends all of that."""
        faults = [
            {
                "path": str(fault.get("path", "/v1/")),
                "method": str(fault.get("method", "*")),
                "times": int(fault.get("times", 1)),
                "kind": fault["kind"],
            }
            for fault in given["faults"]
        ]
        if any(fault["kind"] not in FAULT_KINDS for fault in faults):
            raise Problem(f"A fault is one of {', '.join(FAULT_KINDS)}.")
        self._world.store.set(FAULTS, faults)
        return {"faults": faults}

    def _endpoint(self, path: Thing, given: Thing) -> Thing:
        """Where events go and how they are signed; without a `url` nowhere."""
        endpoint = given and {"url": str(given["url"]), "secret": str(given["secret"])}
        self._world.store.set("endpoint", endpoint or None)
        return {"url": given.get("url")}

    def _rules(self, path: Thing, given: Thing) -> Thing:
        """See `webhooks.py`; what is not named goes back to its default."""
        if any(rule["action"] not in ACTIONS for rule in given.get("rules", [])):
            raise Problem(f"An action is one of {', '.join(ACTIONS)}.")
        self._world.store.set("webhooks", given)
        return given

    def _send(self, path: Thing, given: Thing) -> Thing:
        """An event once more, or one that is forged: signed with another secret."""
        event = self._world.get("event", str(given["event"]))
        self._webhooks.put(event, forged=bool(given.get("forged")))
        return event

    async def _state(self, request: Request) -> Thing:
        store = self._world.store
        deliveries = store.rows(
            "SELECT event, state, attempt, answer FROM deliveries ORDER BY position DESC LIMIT ?",
            DELIVERIES_SHOWN,
        )
        return {
            "now_s": self._world.now_s(),
            "frozen": self._world.is_frozen,
            "objects": store.counts(),
            "next_job": store.next_job(),
            "webhooks": store.setting("webhooks", {}),
            "deliveries": [
                {"event": event, "state": state, "attempts": attempts, "answer": answer}
                for event, state, attempts, answer in deliveries
            ],
        }

    async def _object(self, request: Request) -> Thing:
        thing = self._world.store.find(request.path_params["id"])
        if thing is None:
            raise Problem("No such object", status=404)
        return thing

    async def _kind(self, request: Request) -> Thing:
        return {"data": self._world.all(request.path_params["kind"])}

    async def _flush(self, request: Request) -> Thing:
        """Deliver what is due now; answered when each was tried once."""
        return await self._webhooks.send_due()


def _outcome(given: Thing) -> Outcome:
    status = str(given.get("outcome", "succeeded"))
    if status not in ("succeeded", "failed", "processing"):
        raise Problem("An outcome is succeeded, failed or processing.")
    return Outcome(status, str(given.get("code", payments.DECLINED)))


async def _json(request: Request) -> dict[str, Any]:
    held = b""
    async for piece in request.stream():
        held += piece
        if len(held) > BODY_BYTES_MAX:
            raise Problem("The body is too large.", status=413)
    try:
        given = json.loads(held or b"{}")
    except ValueError:
        raise Problem("The body is no JSON.") from None
    if not isinstance(given, dict):
        raise Problem("The body is to be a JSON object.")
    return given
