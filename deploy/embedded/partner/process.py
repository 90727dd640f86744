"""`EmbeddedPartner`: the reference partner as a child process, with the verbs of the engines.

Everything is in DIR/partner: its books, its port, its two secrets. So a start after a stop or a
`kill -9` is the same partner at the same address.
"""

import base64
import json
import os
import secrets
import sys
from collections.abc import Iterable
from http.client import HTTPConnection, HTTPException
from pathlib import Path
from typing import Any

from deploy.embedded.child import ChildProcess, clean_environment
from deploy.embedded.partner.app import BASE
from deploy.embedded.ports import free_port

START_PATIENCE_SECONDS = 30.0
STOP_TIMEOUT_SECONDS = 5.0
PROBE_TIMEOUT_SECONDS = 2.0
NAME = "reference"
KEPT_FILE = "partner.json"
OWNER_ONLY = 0o600


class EmbeddedPartner:
    """One reference partner on one data directory; `start`, `stop` and `kill` may follow each
    other freely. All calls block."""

    def __init__(
        self, data_dir: Path, *, webhook_url: str = "", die_with_parent: bool = True
    ) -> None:
        """`webhook_url` is where it sends webhooks: our `/webhooks/partners/reference`."""
        self.directory = data_dir / "partner"
        self.directory.mkdir(parents=True, exist_ok=True)
        self._webhook_url = webhook_url
        kept = self._kept()
        self.port: int = kept["port"]
        self.signing_secret: str = kept["signing_secret"]
        """With which we sign requests to it."""
        self.webhook_secret: str = kept["webhook_secret"]
        """With which it signs webhooks."""
        self._child = ChildProcess(
            "partner", self.directory / "partner.log", die_with_parent=die_with_parent
        )

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def base(self) -> str:
        """The address of the contract's endpoints."""
        return self.url + BASE

    @property
    def is_running(self) -> bool:
        return self._child.is_running

    @property
    def pid(self) -> int | None:
        return self._child.pid

    @property
    def exit_code(self) -> int | None:
        """How the last process ended (negative: by which signal); None while it runs."""
        return self._child.exit_code

    def why(self) -> str:
        """What it said went wrong since its last start, on one line; may be empty."""
        return self._child.why()

    def partners_toml(self, organizations: Iterable[str]) -> str:
        """The text of a METERING_PARTNERS_FILE by which it manages these organizations."""
        return "\n".join(
            [
                f"[partners.{NAME}]",
                f"base = {json.dumps(self.base)}",
                f"signing_secrets = {json.dumps([self.signing_secret])}",
                f"webhook_secrets = {json.dumps([self.webhook_secret])}",
                f"organizations = {json.dumps(sorted(organizations))}",
                'allow_networks = ["127.0.0.1/32"]',
                "",
            ]
        )

    def start(self) -> None:
        """Returns when it answers, else raises EngineError."""
        environment = clean_environment(
            {
                "PARTNER_SIGNING_SECRET": self.signing_secret,
                "PARTNER_WEBHOOK_SECRET": self.webhook_secret,
            }
        )
        module = [sys.executable, "-m", "deploy.embedded.partner"]
        self._child.start([*module, str(self.directory), str(self.port)], environment)
        self._child.wait_until(self._answers, START_PATIENCE_SECONDS)
        if self._webhook_url:
            self.control("webhooks", {"mode": "deliver", "url": self._webhook_url})

    def stop(self) -> None:
        self._child.stop(STOP_TIMEOUT_SECONDS)

    def kill(self) -> None:
        """`kill -9`."""
        self._child.kill()

    def control(self, switch: str, body: dict[str, Any] | None = None) -> Any:
        """Turns a switch of `/_control/`; without a body it only asks. Raises OSError and
        HTTPException where nobody answers."""
        connection = HTTPConnection("127.0.0.1", self.port, timeout=PROBE_TIMEOUT_SECONDS * 5)
        try:
            connection.request(
                "GET" if body is None else "POST",
                f"/_control/{switch}",
                None if body is None else json.dumps(body),
                {"Content-Type": "application/json"},
            )
            return json.loads(connection.getresponse().read())
        finally:
            connection.close()

    def _answers(self) -> bool:
        connection = HTTPConnection("127.0.0.1", self.port, timeout=PROBE_TIMEOUT_SECONDS)
        try:
            connection.request("GET", "/_control/state")
            return connection.getresponse().status == 200
        except (OSError, HTTPException):
            return False
        finally:
            connection.close()

    def _kept(self) -> dict[str, Any]:
        """Port and secrets, made once; a damaged file is made anew."""
        file = self.directory / KEPT_FILE
        try:
            kept: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
            if isinstance(kept["port"], int) and kept["signing_secret"] and kept["webhook_secret"]:
                return kept
        except (OSError, ValueError, KeyError, TypeError):
            pass
        kept = {
            "port": free_port(),
            "signing_secret": new_secret(),
            "webhook_secret": new_secret(),
        }
        draft = file.with_suffix(".draft")
        descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, OWNER_ONLY)
        with os.fdopen(descriptor, "w", encoding="utf-8") as opened:
            json.dump(kept, opened)
        draft.replace(file)
        return kept


def new_secret() -> str:
    """In Standard Webhooks' form."""
    return "whsec_" + base64.b64encode(secrets.token_bytes(32)).decode()
