"""HTTP as Stripe speaks it: keys, versions, idempotency, errors, request ids.

https://docs.stripe.com/api. One request is one transaction: an answer that was given is kept.
"""

import base64
import binascii
import hashlib
import hmac
import json
from collections.abc import Callable
from typing import Any, Final
from urllib.parse import urlsplit

from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from deploy.embedded.stripe.answers import expanded
from deploy.embedded.stripe.handlers import Declined
from deploy.embedded.stripe.parameters import checked, parse_form
from deploy.embedded.stripe.problems import Problem
from deploy.embedded.stripe.resources import find_endpoint
from deploy.embedded.stripe.shapes import API_VERSION
from deploy.embedded.stripe.store import Thing
from deploy.embedded.stripe.world import World

BODY_BYTES_MAX: Final = 1_048_576
KEY_CHARACTERS_MAX: Final = 255
ANSWERS_KEPT_S: Final = 86_400
FAULTS: Final = "faults"
FAULT_KINDS: Final = ("error", "lost", "rate_limited")
"""`error`: nothing is done, 500, which its idempotency key replays. `lost`: done, and the answer
never arrives (502). `rate_limited`: nothing is done, 429, which no key keeps."""


OnRequest = Callable[[str, str, str, str], None]
"""Told of each request that was authenticated: method, path, query, body."""


class Api:
    def __init__(self, world: World, key: str, on_request: OnRequest) -> None:
        self._world = world
        self._key = key
        self._on_request = on_request

    async def answer(self, request: Request) -> Response:
        request_id = self._world.new_id("req_")[:18]
        try:
            status, body, replayed = await self._answer(request, request_id)
        except Problem as problem:
            status, body, replayed = problem.status, _error(problem, request_id), False
        headers = {"Request-Id": request_id, "Stripe-Version": API_VERSION}
        if key := request.headers.get("Idempotency-Key"):
            headers["Idempotency-Key"] = key[:KEY_CHARACTERS_MAX]
        if replayed:
            headers["Idempotent-Replayed"] = "true"
        return JSONResponse(body, status, headers)

    async def _answer(self, request: Request, request_id: str) -> tuple[int, Thing, bool]:
        self._authenticate(request)
        method, path = request.method, request.url.path
        endpoint, names = find_endpoint(method, path)
        body = await _body(request)
        self._on_request(method, path, request.url.query, body)
        given = parse_form(f"{request.url.query}&{body}" if request.url.query else body)
        key = request.headers.get("Idempotency-Key") if method == "POST" else None
        asked = _digest(method, path, given)
        if key is not None and (former := self._replayed(key, asked)):
            return (*former, True)
        params = checked(given, endpoint.params, endpoint.supported)
        paths = params.pop("expand", [])
        fault = self._fault(method, path)
        if fault == "rate_limited":
            raise Problem("Too many requests.", status=429, code="rate_limit")
        if fault == "error":
            return (*self._broken(key, asked, request_id), False)
        status, answer = self._change(
            endpoint.handler, names, params, paths, key, asked, request_id
        )
        if fault == "lost":
            raise Problem("The answer was lost on the way.", status=502, kind="api_error")
        return status, answer, False

    def _change(
        self,
        handler: Any,
        names: Thing,
        params: Thing,
        paths: list[str],
        key: str | None,
        asked: str,
        request_id: str,
    ) -> tuple[int, Thing]:
        world = self._world
        world.request = {"id": request_id, "idempotency_key": key}
        try:
            with world.change():
                try:
                    answer = handler(world, names, params)
                    status, body = 200, expanded(world, answer, paths)
                except Declined as declined:
                    status, body = declined.status, _error(declined, request_id)
                if key is not None:
                    self._keep(key, asked, status, body)
            return status, body
        except Problem as problem:
            # What the parameters alone did not tell is remembered with its key, as at Stripe.
            if key is not None:
                with world.change():
                    self._keep(key, asked, problem.status, _error(problem, request_id))
            raise
        finally:
            world.request = {"id": None, "idempotency_key": None}

    def _authenticate(self, request: Request) -> None:
        given = _given_key(request.headers.get("Authorization", ""))
        if not given:
            raise Problem(
                "You did not provide an API key. You need to provide your API key in the"
                " Authorization header, using Bearer auth (e.g. 'Authorization: Bearer"
                " YOUR_SECRET_KEY').",
                status=401,
            )
        if not hmac.compare_digest(given.encode(), self._key.encode()):
            shown = f"{given[:8]}{'*' * 8}{given[-4:]}" if len(given) > 16 else "*" * 8
            raise Problem(f"Invalid API Key provided: {shown}", status=401)
        if account := request.headers.get("Stripe-Account"):
            raise Problem(
                f"The provided key does not have access to account '{account}' (or that account"
                " does not exist).",
                status=403,
                code="account_invalid",
            )
        version = request.headers.get("Stripe-Version", API_VERSION)
        if version != API_VERSION:
            raise Problem(f"Invalid Stripe API version: {version}. Here it is {API_VERSION}.")

    def _replayed(self, key: str, asked: str) -> tuple[int, Thing] | None:
        if not 0 < len(key) <= KEY_CHARACTERS_MAX:
            raise Problem(f"Idempotency keys have 1 to {KEY_CHARACTERS_MAX} characters.")
        rows = self._world.store.rows("SELECT asked, status, body FROM answers WHERE key = ?", key)
        if not rows:
            return None
        ((former, status, body),) = rows
        if former != asked:
            raise Problem(
                "Keys for idempotent requests can only be used with the same parameters they were"
                f" first used with. Try using a key other than '{key}' if you meant to execute a"
                " different request.",
                kind="idempotency_error",
            )
        return status, json.loads(body)

    def _keep(self, key: str, asked: str, status: int, body: Thing) -> None:
        now_s = self._world.now_s()
        rows = self._world.store.rows
        rows("DELETE FROM answers WHERE made_s < ?", now_s - ANSWERS_KEPT_S)
        rows(
            "INSERT OR IGNORE INTO answers (key, made_s, asked, status, body)"
            " VALUES (?, ?, ?, ?, ?)",
            *(key, now_s, asked, status, json.dumps(body)),
        )

    def _fault(self, method: str, path: str) -> str | None:
        """The first ordered fault for such a request; it is used up by it."""
        store = self._world.store
        faults: list[Thing] = store.setting(FAULTS, [])
        for fault in faults:
            fits = path.startswith(fault["path"]) and fault["method"] in (method, "*")
            if fits and fault["times"] > 0:
                fault["times"] -= 1
                with self._world.change():
                    store.set(FAULTS, [left for left in faults if left["times"] > 0])
                return str(fault["kind"])
        return None

    def _broken(self, key: str | None, asked: str, request_id: str) -> tuple[int, Thing]:
        broken = Problem("Something went wrong on Stripe's end.", status=500, kind="api_error")
        body = _error(broken, request_id)
        if key is not None:
            with self._world.change():
                self._keep(key, asked, 500, body)
        return 500, body


def is_local(request: Request, port: int) -> bool:
    """Asked under a name of this machine, and by no web page of elsewhere."""
    names = {f"{name}:{port}" for name in ("127.0.0.1", "localhost")}
    origin = request.headers.get("Origin")
    here = origin is None or urlsplit(origin).netloc in names
    return request.headers.get("Host", "") in names and here


def _error(problem: Problem, request_id: str) -> Thing:
    return {"error": {**problem.error, "request_log_url": f"standin:{request_id}"}}


def _given_key(header: str) -> str:
    scheme, _, value = header.partition(" ")
    if scheme.lower() == "bearer":
        return value.strip()
    if scheme.lower() == "basic":
        try:
            return base64.b64decode(value, validate=True).decode().partition(":")[0]
        except (binascii.Error, UnicodeDecodeError):
            return ""
    return ""


async def _body(request: Request) -> str:
    held = b""
    async for piece in request.stream():
        held += piece
        if len(held) > BODY_BYTES_MAX:
            raise Problem(f"The body is larger than {BODY_BYTES_MAX} bytes.", status=413)
    try:
        return held.decode()
    except UnicodeDecodeError:
        raise Problem("The body is not UTF-8.") from None


def _digest(method: str, path: str, given: Thing) -> str:
    text = json.dumps([method, path, given], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()
