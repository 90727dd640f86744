"""The stand-in in a thread of the test's process: quick to start, its clock frozen.

`running_stripe` is for tests of anything that talks with Stripe; where a process is to be killed,
`deploy.embedded.stripe.EmbeddedStripe` is the one to use.
"""

import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import stripe

from deploy.embedded.ports import free_port
from deploy.embedded.stripe.app import Settings, make_server
from deploy.embedded.stripe.driving import StripeControl

KEY = "sk_" + "test_of_the_tests"
WEBHOOK_SECRET = "whsec_" + "of_the_tests"
TOKEN = "control_of_the_tests"
START_S = 30


@dataclass(frozen=True, slots=True)
class RunningStripe:
    """Where it is, how clients authenticate, and what drives it."""

    url: str
    api_key: str
    webhook_secret: str
    control: StripeControl

    def client(self, **options: object) -> stripe.StripeClient:
        """Stripe's own client, of this stand-in."""
        return stripe.StripeClient(self.api_key, base_addresses={"api": self.url}, **options)  # type: ignore[arg-type]


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
        server = make_server(settings, started.set)
        thread = threading.Thread(target=server.run, name="stripe", daemon=True)
        thread.start()
        assert started.wait(START_S), "the stand-in for Stripe did not start"
        control = StripeControl(f"http://127.0.0.1:{chosen}", TOKEN)
        try:
            if frozen:
                control.freeze()
            control.webhook_rules(signed_at=signed_at, paused=paused)
            yield RunningStripe(f"http://127.0.0.1:{chosen}", KEY, WEBHOOK_SECRET, control)
        finally:
            control.close()
            server.stop()
            thread.join(START_S)
            assert not thread.is_alive(), "the stand-in for Stripe did not stop"
