"""The stand-in in a thread of the test's process: quick to start, its clock frozen.

`running_stripe` is for tests of anything that talks with Stripe; where a process is to be killed,
`deploy.embedded.stripe.EmbeddedStripe` is the one to use.
"""

import tempfile
import threading
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import stripe

from deploy.embedded.ports import free_port
from deploy.embedded.stripe.app import Settings, make_server
from deploy.embedded.stripe.driving import StripeControl

KEY = "sk_" + "test_of_the_tests"
WEBHOOK_SECRET = "whsec_" + "of_the_tests"
TOKEN = "control_of_the_tests"
START_S = 30


class Asked(NamedTuple):
    method: str
    path: str
    query: str
    body: str


@dataclass(frozen=True, slots=True)
class RunningStripe:
    """Where it is, how clients authenticate, and what drives it."""

    url: str
    api_key: str
    webhook_secret: str
    control: StripeControl
    requests: list[Asked] = field(default_factory=list)
    """Every request that was authenticated, oldest first: for `stripe_mock.refusals`."""

    _clients: list[stripe.RequestsClient] = field(default_factory=list)

    def client(self, **options: Any) -> stripe.StripeClient:
        """Stripe's own client, of this stand-in. What it opened is closed with the stand-in;
        of what it does asynchronously nothing is (`asynchronous`)."""
        http = stripe.RequestsClient()
        self._clients.append(http)
        return self._made(http, **options)

    @asynccontextmanager
    async def asynchronous(self, **options: Any) -> AsyncIterator[stripe.StripeClient]:
        http = stripe.HTTPXClient()
        try:
            yield self._made(http, **options)
        finally:
            await http.close_async()

    def close(self) -> None:
        self.control.close()
        for http in self._clients:
            http.close()

    def _made(self, http: stripe.HTTPClient, **options: Any) -> stripe.StripeClient:
        return stripe.StripeClient(
            self.api_key, base_addresses={"api": self.url}, http_client=http, **options
        )


@contextmanager
def running_stripe(
    *,
    webhook_url: str = "",
    directory: Path | None = None,
    port: int | None = None,
    frozen: bool = True,
    signed_at: str = "moved",
    paused: bool = False,
) -> Iterator[RunningStripe]:
    """`frozen`: its clock stands at now until `control.advance` moves it. `signed_at`: by which
    clock webhooks are signed, `moved` or `real`. `paused`: they go out with a flush only."""
    with tempfile.TemporaryDirectory() as own:
        chosen = free_port() if port is None else port
        started = threading.Event()
        settings = Settings(directory or Path(own), chosen, KEY, TOKEN, webhook_url, WEBHOOK_SECRET)
        requests: list[Asked] = []
        server = make_server(
            settings, started.set, lambda *request: requests.append(Asked(*request))
        )
        thread = threading.Thread(target=server.run, name="stripe", daemon=True)
        thread.start()
        assert started.wait(START_S), "the stand-in for Stripe did not start"
        control = StripeControl(settings.url, TOKEN)
        running = RunningStripe(settings.url, KEY, WEBHOOK_SECRET, control, requests)
        try:
            if frozen:
                control.freeze()
            control.webhook_rules(signed_at=signed_at, paused=paused)
            yield running
        finally:
            running.close()
            server.stop()
            thread.join(START_S)
            assert not thread.is_alive(), "the stand-in for Stripe did not stop"
