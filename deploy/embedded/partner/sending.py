"""Webhooks go out in order, signed, again and again until they are taken: at most a day."""

import asyncio
import time
from datetime import UTC, datetime
from typing import Final

import httpx
from standardwebhooks.webhooks import Webhook

from deploy.embedded.partner.books import Books

LOOK_S: Final = 0.5
TIMEOUT_S: Final = 10.0
ATTEMPTS_MAX: Final = 40
BACKOFF_S: Final = 0.25
BACKOFF_S_MAX: Final = 300.0


def signed(secret: str, message_id: str, body: str, at: datetime) -> dict[str, str]:
    """The headers of Standard Webhooks."""
    return {
        "content-type": "application/json",
        "webhook-id": message_id,
        "webhook-timestamp": str(int(at.timestamp())),
        "webhook-signature": Webhook(secret).sign(message_id, at, body),
    }


class Sender:
    """Runs as a task of the server; `wake` when there may be something new."""

    def __init__(self, books: Books, secret: str) -> None:
        self._books = books
        self._secret = secret
        self._woken = asyncio.Event()

    def wake(self) -> None:
        self._woken.set()

    async def run(self) -> None:
        async with httpx.AsyncClient(timeout=TIMEOUT_S, trust_env=False) as client:
            while True:
                self._woken.clear()
                await self._round(client)
                try:
                    await asyncio.wait_for(self._woken.wait(), LOOK_S)
                except TimeoutError:
                    continue

    async def _round(self, client: httpx.AsyncClient) -> None:
        url: str = self._books.switch("webhook_url", "")
        if not url:
            return
        for number, message_id, body, attempts in self._books.due_webhooks(time.time()):
            copies = 2 if self._books.switch("delivery", "deliver") == "duplicate" else 1
            problem = ""
            for _ in range(copies):
                problem = await self._send(client, url, message_id, body)
            is_over = not problem or attempts + 1 >= ATTEMPTS_MAX
            due = time.time() + min(BACKOFF_S * 2**attempts, BACKOFF_S_MAX)
            self._books.note_attempt(number, due, (problem or "taken") if is_over else None)

    async def _send(self, client: httpx.AsyncClient, url: str, message_id: str, body: str) -> str:
        """What went wrong; empty when it was taken."""
        headers = signed(self._secret, message_id, body, datetime.now(UTC))
        try:
            answer = await client.post(url, content=body, headers=headers)
        except httpx.HTTPError as error:
            return f"{type(error).__name__}: {error}"
        return "" if answer.is_success else f"status {answer.status_code}"
