"""Settings of the API process alone, beside those that all processes share: its own
(`METERING_API_*`), and how it is paid by Stripe (`METERING_STRIPE_*`)."""

import re
from datetime import timedelta
from ipaddress import ip_network
from typing import Final, Self

from pydantic import Field, SecretStr, field_validator, model_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

API_KEY: Final = re.compile(r"(sk|rk)_(test|live)_[A-Za-z0-9_]{4,500}")
WEBHOOK_SECRET: Final = re.compile(r"whsec_[A-Za-z0-9+/=_-]{8,500}")
HTTP_URL: Final = re.compile(r"(https?://[^\s?#@/]+(/[^\s?#@]*)?)?")
WEBHOOK_SECRETS_MAX: Final = 8


class ApiOptions(BaseSettings):
    """Addresses and limits of the API. Rates are requests a minute, per organization and process;
    a process keeps its own count, so replicas multiply the rate."""

    model_config = SettingsConfigDict(
        env_prefix="METERING_API_", env_file=None, extra="ignore", frozen=True
    )

    host: str = "127.0.0.1"
    port: int = Field(default=8484, ge=0, le=65535)
    public_url: str = ""
    """Under which address clients reach the API, as answers name it; never what a request says."""
    trusted_proxies: str = ""
    """Addresses and networks, with commas between, whose `X-Forwarded-For` is believed."""
    rate_per_minute: int = Field(default=600, ge=1, le=1_000_000)
    usage_rate_per_minute: int = Field(default=600, ge=1, le=1_000_000)
    scim_rate_per_minute: int = Field(default=6_000, ge=1, le=1_000_000)
    ingest_rate_per_minute: int = Field(default=60_000, ge=1, le=10_000_000)
    failed_logins_per_minute: int = Field(default=60, ge=1, le=100_000)
    body_limit_bytes: int = Field(default=1_048_576, ge=1024, le=64 * 1_048_576)
    csv_limit_bytes: int = Field(default=32 * 1_048_576, ge=1024, le=256 * 1_048_576)
    ingest_waiting_max: int = Field(default=10_000, ge=1, le=1_000_000)
    """Events that may wait for the broker at once; more answers 503."""
    publish: bool = True
    """Whether this process publishes the outbox. One at a time does, whoever holds the lock."""

    @field_validator("public_url")
    @classmethod
    def _is_an_address(cls, url: str) -> str:
        return _http_url(url)

    @field_validator("trusted_proxies")
    @classmethod
    def _are_networks(cls, listed: str) -> str:
        for one in filter(None, (part.strip() for part in listed.split(","))):
            ip_network(one)
        return listed

    @property
    def base_url(self) -> str:
        """`public_url`, or where the process listens; without a slash at the end."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return (self.public_url or f"http://{host}:{self.port}").rstrip("/")


class PaymentOptions(BaseSettings):
    """How Stripe is reached. Without a key nothing is sold through it."""

    model_config = SettingsConfigDict(
        env_prefix="METERING_STRIPE_",
        env_file=None,
        extra="ignore",
        frozen=True,
        hide_input_in_errors=True,
    )

    api_key: SecretStr = SecretStr("")
    """A secret or restricted key; without one nothing is sold through Stripe."""
    webhook_secret: SecretStr = SecretStr("")
    """Of the webhook endpoint, `whsec_…`; several with commas between while they are rotated."""
    api_base: str = ""
    """Where a stand-in for Stripe answers; only with a test key."""
    renewals_awaiting: bool = True
    """Whether the next period's credits are there before its invoice is paid."""
    renewal_lead_s: int = Field(default=3600, ge=0, le=86_400)
    """How long before the end of a period the next one's credits are put in place; 0: only once
    Stripe has drafted the invoice."""
    reconcile_hour_utc: int = Field(default=3, ge=0, le=23)
    webhook_tolerance_s: int = Field(default=300, ge=1, le=3600)
    """How far a webhook's time may be from ours, to either side."""

    @field_validator("api_base")
    @classmethod
    def _is_an_address(cls, url: str) -> str:
        return _http_url(url)

    @field_validator("api_key")
    @classmethod
    def _is_a_key(cls, key: SecretStr) -> SecretStr:
        if key.get_secret_value() and not API_KEY.fullmatch(key.get_secret_value()):
            raise ValueError(
                "no secret key of Stripe's: those begin with sk_ or rk_, test_ or live_"
            )
        return key

    @field_validator("webhook_secret")
    @classmethod
    def _are_secrets(cls, listed: SecretStr) -> SecretStr:
        secrets = _listed(listed)
        if len(secrets) > WEBHOOK_SECRETS_MAX:
            raise ValueError(f"at most {WEBHOOK_SECRETS_MAX} secrets")
        if not all(WEBHOOK_SECRET.fullmatch(one) for one in secrets):
            raise ValueError(
                "no signing secret of Stripe's: those are whsec_ and at least 8 letters, with"
                " commas between several"
            )
        return listed

    @model_validator(mode="after")
    def _fit_each_other(self) -> Self:
        if self.is_on and not self.webhook_secrets:
            raise ValueError(
                "METERING_STRIPE_WEBHOOK_SECRET is missing beside METERING_STRIPE_API_KEY"
            )
        if self.webhook_secrets and not self.is_on:
            raise ValueError(
                "METERING_STRIPE_API_KEY is missing beside METERING_STRIPE_WEBHOOK_SECRET"
            )
        if self.api_base and (self.is_live or not self.is_on):
            raise ValueError(
                "METERING_STRIPE_API_BASE names a stand-in, which takes a test key only (sk_test_…)"
            )
        return self

    @property
    def is_on(self) -> bool:
        return bool(self.api_key.get_secret_value())

    @property
    def is_live(self) -> bool:
        """Whether real money moves."""
        return self.api_key.get_secret_value().startswith(("sk_live_", "rk_live_"))

    @property
    def webhook_secrets(self) -> tuple[str, ...]:
        return _listed(self.webhook_secret)

    @property
    def renewal_lead(self) -> timedelta | None:
        """None where no renewal is placed ahead of its invoice."""
        if not self.renewals_awaiting or not self.renewal_lead_s:
            return None
        return timedelta(seconds=self.renewal_lead_s)


def _http_url(url: str) -> str:
    if not HTTP_URL.fullmatch(url):
        raise ValueError("is to be http:// or https://, a host, and perhaps a port and a path")
    return url


def _listed(secrets: SecretStr) -> tuple[str, ...]:
    return tuple(filter(None, (one.strip() for one in secrets.get_secret_value().split(","))))
