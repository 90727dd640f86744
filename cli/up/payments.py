"""Who is paid in `up`: a stand-in for Stripe where no key of Stripe's is configured, and in the
demo a partner, where no file of partners is."""

from collections.abc import Mapping
from typing import Final

from cli.configuration import STRIPE_CONTROL
from cli.errors import WRONG_SETTINGS, Failure
from cli.up.data_dir import DataDirectory
from cli.up.demo_state import DEMO_ORGANIZATION
from cli.up.supervisor import Supervisor, saying_that_it_is_slow
from deploy.embedded.partner import EmbeddedPartner
from deploy.embedded.stripe import EmbeddedStripe

STRIPE_KEY: Final = "METERING_STRIPE_API_KEY"
PARTNERS_FILE: Final = "METERING_PARTNERS_FILE"
LIVE_KEYS: Final = ("sk_live_", "rk_live_")
STRIPE: Final = "stand-in for Stripe"


class PaymentParts:
    """Both keep their secrets and what they know in the data directory."""

    def __init__(
        self,
        directory: DataDirectory,
        configured: Mapping[str, str],
        api_url: str,
        stripe_port: int,
        *,
        demo: bool,
    ) -> None:
        self._directory = directory
        self.stripe: EmbeddedStripe | None = None
        self.partner: EmbeddedPartner | None = None
        key = configured.get(STRIPE_KEY, "")
        if key.startswith(LIVE_KEYS):
            raise Failure(
                f"{STRIPE_KEY} is a live key, and real money is nothing for embedded engines: use a"
                " test key, or none for the stand-in for Stripe",
                WRONG_SETTINGS,
            )
        if not key:
            self.stripe = EmbeddedStripe(
                directory.path, port=stripe_port, webhook_url=f"{api_url}/webhooks/stripe"
            )
        if demo and not configured.get(PARTNERS_FILE):
            self.partner = EmbeddedPartner(
                directory.path, webhook_url=f"{api_url}/webhooks/partners/reference"
            )

    def environment(self) -> dict[str, str]:
        """What tells the API process of them."""
        variables: dict[str, str] = {}
        if self.stripe is not None:
            variables |= {
                STRIPE_KEY: self.stripe.key,
                "METERING_STRIPE_WEBHOOK_SECRET": self.stripe.webhook_secret,
                "METERING_STRIPE_API_BASE": self.stripe.url,
            }
        if self.partner is not None:
            text = self.partner.partners_toml([DEMO_ORGANIZATION])
            variables[PARTNERS_FILE] = str(self._directory.write("partners.toml", text))
        return variables

    def for_people(self) -> dict[str, str]:
        return {STRIPE_CONTROL: self.stripe.token} if self.stripe is not None else {}

    def launch(self, supervisor: Supervisor) -> None:
        """Begin to start, beside whatever else does."""
        if self.stripe is not None:
            supervisor.adopt(STRIPE, self.stripe)
            self.stripe.launch()

    def wait_until_ready(self, supervisor: Supervisor) -> None:
        """Raises `EngineError` when one does not start."""
        if self.stripe is not None:
            with saying_that_it_is_slow(STRIPE, supervisor.say):
                self.stripe.wait_until_ready()
            supervisor.keep(self.stripe)
        if self.partner is not None:
            supervisor.start("partner", self.partner)

    def rows(self) -> list[tuple[str, str]]:
        """Where they are, for people."""
        rows = []
        if self.stripe is not None:
            rows.append(
                ("Stripe", f"{self.stripe.url}, a stand-in: no money moves  pid {self.stripe.pid}")
            )
        if self.partner is not None:
            rows.append(("partner", f"{self.partner.url}, a stand-in  pid {self.partner.pid}"))
        return rows
