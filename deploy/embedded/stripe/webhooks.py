"""Events on their way to the shop: signed, tried again with pauses, kept over restarts.

The rules are switches for tests. Each is an object with `action` (drop, duplicate, delay, forge),
and may have `types` (a list, `*` stands for any), `probability` (1), `times` (no bound) and
`delay_s` (60); the first that fits an event is applied. `reorder` shuffles what is due together.
All chance comes from `seed`.
https://docs.stripe.com/webhooks#verify-manually
"""

import asyncio
import fnmatch
import hashlib
import hmac
import json
import random
import time
from typing import Any, Final

import httpx

from deploy.embedded.stripe import jobs
from deploy.embedded.stripe.store import Thing
from deploy.embedded.stripe.world import World

RETRY_AFTER_S: Final = (5, 30, 300, 3_600, 7_200)
"""Pauses after a delivery that was not answered 2xx; then it is given up."""
TIMEOUT_S: Final = 10.0
SLEEP_S_MAX: Final = 3_600.0
BATCH: Final = 100
ACTIONS: Final = ("drop", "duplicate", "delay", "forge")
SETTINGS: Final = {
    "rules": [], "reorder": False, "paused": False, "seed": 0, "signed_at": "real"
}  # fmt: skip
"""`paused`: sent by a flush only. `signed_at`: the signature's time is the real one, or that of the
clock that can be moved (`moved`)."""


class Webhooks:
    """One task per process. It sleeps until something is due or something has changed."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._awake = asyncio.Event()
        self._sending = asyncio.Lock()
        self._client = httpx.AsyncClient(timeout=TIMEOUT_S, trust_env=False)
        world.on_event = self._queue
        world.on_change = self._awake.set

    async def run(self) -> None:
        while True:
            self._awake.clear()
            jobs.run_due(self._world, self._world.now_s())
            if not self._settings()["paused"]:
                await self.send_due()
            if self._awake.is_set():
                continue
            try:
                await asyncio.wait_for(self._awake.wait(), self._pause_s())
            except TimeoutError:
                continue

    async def close(self) -> None:
        await self._client.aclose()

    async def send_due(self) -> dict[str, int]:
        """Everything that is due by now, once each; how many were delivered and how many not."""
        counts = {"delivered": 0, "failed": 0}
        async with self._sending:
            until_s = self._world.now_s()
            while due := self._due(until_s):
                for delivery in due:
                    done = await self._deliver(delivery)
                    counts["delivered" if done else "failed"] += 1
        return counts

    def _settings(self) -> dict[str, Any]:
        return {**SETTINGS, **self._world.store.setting("webhooks", {})}

    def _queue(self, event: Thing) -> None:
        """Called within the transaction that makes the event."""
        if self._world.store.setting("endpoint") is None:
            return
        settings, now_s = self._settings(), self._world.now_s()
        action, rule = self._action(event, settings)
        if action == "drop":
            self._put(event["id"], now_s, state="dropped")
            return
        self._put(
            event["id"],
            now_s + (rule.get("delay_s", 60) if action == "delay" else 0),
            forged=action == "forge",
        )
        if action == "duplicate":
            self._put(event["id"], now_s)

    def put(self, event: Thing, *, forged: bool = False) -> None:
        """Send it (again), whatever the rules say."""
        self._put(event["id"], self._world.now_s(), forged=forged)

    def _put(self, event: str, due_s: int, *, state: str = "pending", forged: bool = False) -> None:
        self._world.store.rows(
            "INSERT INTO deliveries (event, due_s, attempt, forged, state) VALUES (?, ?, 0, ?, ?)",
            event,
            due_s,
            int(forged),
            state,
        )

    def _action(self, event: Thing, settings: dict[str, Any]) -> tuple[str, dict[str, Any]]:
        store = self._world.store
        number = store.setting("events_seen", 0)
        store.set("events_seen", number + 1)
        chance = random.Random(f"{settings['seed']}:{number}")  # noqa: S311 - chosen by a seed
        for place, rule in enumerate(settings["rules"]):
            types = rule.get("types", ["*"])
            fits = any(fnmatch.fnmatchcase(event["type"], pattern) for pattern in types)
            if not fits or rule.get("times") == 0 or chance.random() >= rule.get("probability", 1):
                continue
            if "times" in rule:
                rules = [*settings["rules"]]
                rules[place] = {**rule, "times": rule["times"] - 1}
                store.set("webhooks", {**settings, "rules": rules})
            return rule["action"], rule
        return "send", {}

    def _due(self, until_s: int) -> list[tuple[int, str, int, int]]:
        rows = self._world.store.rows(
            "SELECT position, event, attempt, forged FROM deliveries"
            " WHERE state = 'pending' AND due_s <= ? ORDER BY due_s, position LIMIT ?",
            until_s,
            BATCH,
        )
        if rows and (settings := self._settings())["reorder"]:
            random.Random(f"{settings['seed']}:{rows[0][0]}").shuffle(rows)  # noqa: S311
        return [(position, event, attempt, forged) for position, event, attempt, forged in rows]

    async def _deliver(self, delivery: tuple[int, str, int, int]) -> bool:
        position, event_id, attempt, forged = delivery
        endpoint = self._world.store.setting("endpoint")
        event = self._world.store.find(event_id)
        if endpoint is None or event is None:
            self._end(position, "given_up", attempt, "no endpoint")
            return False
        body = json.dumps(event, indent=2).encode()
        headers = {
            "Content-Type": "application/json; charset=utf-8",
            "User-Agent": "Stripe/1.0 (stand-in)",
            "Stripe-Signature": signature(
                body, "whsec_of_somebody_else" if forged else endpoint["secret"], self._signed_s()
            ),
        }
        try:
            answer = await self._client.post(endpoint["url"], content=body, headers=headers)
            said, accepted = str(answer.status_code), answer.is_success
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            said, accepted = type(error).__name__, False
        if accepted or forged:
            self._end(position, "delivered" if accepted else "given_up", attempt, said)
        elif attempt >= len(RETRY_AFTER_S):
            self._end(position, "given_up", attempt, said)
        else:
            due_s = self._world.now_s() + RETRY_AFTER_S[attempt]
            self._world.store.rows(
                "UPDATE deliveries SET attempt = ?, due_s = ?, answer = ? WHERE position = ?",
                attempt + 1,
                due_s,
                said,
                position,
            )
        return accepted

    def _end(self, position: int, state: str, attempt: int, answer: str) -> None:
        self._world.store.rows(
            "UPDATE deliveries SET state = ?, attempt = ?, answer = ? WHERE position = ?",
            state,
            attempt + 1,
            answer,
            position,
        )

    def _signed_s(self) -> int:
        is_moved = self._settings()["signed_at"] == "moved"
        return self._world.now_s() if is_moved else int(time.time())

    def _pause_s(self) -> float:
        """Until the next thing is due; a frozen clock brings nothing by itself."""
        if self._world.is_frozen:
            return SLEEP_S_MAX
        job = self._world.store.next_job()
        waiting = [job[1]] if job else []
        if not self._settings()["paused"]:
            rows = self._world.store.rows(
                "SELECT min(due_s) FROM deliveries WHERE state = 'pending'"
            )
            waiting += [due_s for (due_s,) in rows if due_s is not None]
        if not waiting:
            return SLEEP_S_MAX
        return min(SLEEP_S_MAX, max(0.0, min(waiting) - self._world.now_s()))


def signature(body: bytes, secret: str, instant_s: int) -> str:
    """As Stripe signs: HMAC-SHA256 over `{t}.{body}`."""
    signed = hmac.new(secret.encode(), f"{instant_s}.".encode() + body, hashlib.sha256)
    return f"t={instant_s},v1={signed.hexdigest()}"
