"""Configuration: environment variables `METERING_*`, validated at start."""

from pathlib import Path
from typing import Any, Literal, Self

from pydantic import Field, SecretStr, field_validator, model_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

from schemas.topics import all_topics

FUTURE_LIMIT_S = 300
DAY_S = 86_400
DEFAULT_DATA_DIR = Path(__file__).resolve().parents[1].joinpath(".metering")
"""Beside the code, so that every command finds it from any working directory."""
DEFAULT_ALIAS_SECRET = "metering-alias-secret-for-embedded-use"  # noqa: S105 - known to all
"""Under which the control plane hashes aliases, and the worker looks for them, where none is set.
It protects nobody's address."""


class Settings(BaseSettings):
    """Everything that a process can be told. Durations are seconds unless a name says days."""

    model_config = SettingsConfigDict(
        env_prefix="METERING_", env_file=None, extra="ignore", frozen=True
    )

    app_id: str = Field("metering", pattern=r"^[A-Za-z0-9._-]{1,64}$")
    instance_id: str = Field("worker-1", pattern=r"^[A-Za-z0-9._-]{1,64}$")
    data_dir: Path = DEFAULT_DATA_DIR
    log_format: Literal["console", "json"] = "console"
    log_level: Literal["debug", "info", "warning", "error"] = "info"

    kafka_bootstrap: str = "127.0.0.1:9092"
    kafka_security_protocol: Literal["PLAINTEXT", "SSL", "SASL_PLAINTEXT", "SASL_SSL"] = "PLAINTEXT"
    kafka_security_sasl_mechanism: Literal["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"] = (
        "SCRAM-SHA-512"
    )
    kafka_security_username: str = ""
    kafka_security_password: SecretStr = SecretStr("")
    kafka_security_ca_file: Path | None = None
    kafka_replication: int = Field(1, ge=1, le=10)
    topic_prefix: str = Field("", pattern=r"^[A-Za-z0-9._-]{0,64}$")
    partitions: int = Field(8, ge=1, le=1024)
    compression: Literal["none", "snappy", "zstd"] = "snappy"

    clickhouse_url: str = "http://127.0.0.1:8123"
    clickhouse_user: str = "default"
    clickhouse_password: SecretStr = SecretStr("")
    clickhouse_database: str = Field("metering", pattern=r"^[a-z_][a-z0-9_]{0,63}$")
    clickhouse_finance_user: str = "finance"
    clickhouse_finance_password: SecretStr = SecretStr("")

    database_url: str = ""
    partners_file: Path | None = None
    """A TOML file (`api.payments.partners.file`): who charges organizations instead of Stripe."""

    metrics_host: str = "127.0.0.1"
    metrics_port: int = Field(9108, ge=0, le=65535)
    sink_metrics_port: int = Field(9109, ge=0, le=65535)

    alias_secret: SecretStr = SecretStr(DEFAULT_ALIAS_SECRET)
    max_event_age_days: int = Field(35, ge=1, le=400)
    late_grace_s: int = Field(DAY_S, ge=0, le=35 * DAY_S)
    dedupe_window_days: int = Field(50, ge=2, le=800)
    forfeit_interval_s: float = Field(60.0, gt=0, le=3600)

    session_timeout_s: float = Field(10.0, ge=1, le=300)
    batch_max_events: int = Field(20_000, ge=1, le=50_000)
    transaction_timeout_s: float = Field(15.0, ge=5, le=300)

    sink_batch_max_rows: int = Field(20_000, ge=1, le=200_000)
    sink_batch_max_wait_s: float = Field(1.0, gt=0, le=60)

    @field_validator("partners_file", mode="before")
    @classmethod
    def _empty_is_none(cls, given: Any) -> Any:
        return given or None

    @field_validator("alias_secret")
    @classmethod
    def _secret_is_long_enough(cls, secret: SecretStr) -> SecretStr:
        if not secret.get_secret_value():
            return SecretStr(DEFAULT_ALIAS_SECRET)
        if len(secret.get_secret_value()) < 16:
            raise ValueError("needs at least 16 characters")
        return secret

    @model_validator(mode="after")
    def _dedupe_window_covers_replays(self) -> Self:
        usage = all_topics()["usage"].retention_days
        needed_days = self.max_event_age_days + usage + 1
        if self.dedupe_window_days < needed_days:
            raise ValueError(
                f"METERING_DEDUPE_WINDOW_DAYS is {self.dedupe_window_days}, but an event may come "
                f"{self.max_event_age_days} days late and stay {usage} days in `usage`: set at "
                f"least {needed_days}, or an old event could be charged twice"
            )
        return self

    def topic(self, name: str) -> str:
        """The topic's name on the broker."""
        return self.topic_prefix + name
