"""Settings of the API process alone (`METERING_API_*`), beside those that all processes share."""

from ipaddress import ip_network

from pydantic import Field, field_validator
from pydantic_settings import BaseSettings, SettingsConfigDict


class ApiOptions(BaseSettings):
    """Addresses and limits of the API. Rates are requests a minute, per organization and process;
    a process keeps its own count, so replicas multiply the rate."""

    model_config = SettingsConfigDict(
        env_prefix="METERING_API_", env_file=None, extra="ignore", frozen=True
    )

    host: str = "127.0.0.1"
    port: int = Field(default=8484, ge=0, le=65535)
    public_url: str = Field(default="", pattern=r"^(https?://[^\s?#@/]+(/[^\s?#@]*)?)?$")
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
