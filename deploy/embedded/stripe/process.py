"""The stand-in for Stripe as a child process."""

import json
import os
import secrets
import sys
from http import HTTPStatus
from http.client import HTTPConnection, HTTPException
from pathlib import Path
from typing import Final

from deploy.embedded.child import ChildProcess, clean_environment
from deploy.embedded.ports import free_port

START_PATIENCE_SECONDS: Final = 60.0
STOP_TIMEOUT_SECONDS: Final = 10.0
PROBE_TIMEOUT_SECONDS: Final = 1.0
SECRETS_FILE: Final = "secrets.json"
PREFIXES: Final = {
    # In pieces, because what looks like a key is reported by those who search code for keys.
    "key": "sk_" + "test_standin_",
    "webhook_secret": "whsec_" + "standin_",
    "token": "control_",
}


class EmbeddedStripe:
    """One stand-in on one data directory; `start`, `stop` and `kill` may follow each other freely.

    Its key, webhook secret and control token are made on first use and stay with the data. Events
    go to `webhook_url`, if one is given.
    """

    def __init__(
        self,
        data_dir: Path,
        *,
        port: int | None = None,
        webhook_url: str = "",
        die_with_parent: bool = True,
    ) -> None:
        self.directory = data_dir.resolve() / "stripe"
        self.port = free_port() if port is None else port
        self.webhook_url = webhook_url
        self._child = ChildProcess(
            "The stand-in for Stripe",
            self.directory / "stripe.log",
            die_with_parent=die_with_parent,
            keeps_output=True,
        )

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def key(self) -> str:
        """What clients authenticate with; a test key."""
        return self._secrets()["key"]

    @property
    def webhook_secret(self) -> str:
        """What events are signed with."""
        return self._secrets()["webhook_secret"]

    @property
    def token(self) -> str:
        """What opens `/_control/`."""
        return self._secrets()["token"]

    @property
    def pid(self) -> int | None:
        return self._child.pid

    @property
    def is_running(self) -> bool:
        return self._child.is_running

    @property
    def exit_code(self) -> int | None:
        """How the last process ended (negative: by which signal); None while it runs."""
        return self._child.exit_code

    def why(self) -> str:
        """What it said went wrong since its last start, on one line; may be empty."""
        return self._child.why()

    def start(self, patience_seconds: float = START_PATIENCE_SECONDS) -> None:
        """Return once it answers; raise `EngineError` with why it does not."""
        self.launch()
        self.wait_until_ready(patience_seconds)

    def launch(self) -> None:
        """Start it and return at once: several parts start side by side."""
        command = [sys.executable, "-m", "deploy.embedded.stripe"]
        command += ["--path", str(self.directory), "--port", str(self.port)]
        environment = {
            "STRIPE_STAND_IN_KEY": self.key,
            "STRIPE_STAND_IN_TOKEN": self.token,
            "STRIPE_STAND_IN_WEBHOOK_URL": self.webhook_url,
            "STRIPE_STAND_IN_WEBHOOK_SECRET": self.webhook_secret,
        }
        self._child.start(command, clean_environment(environment))

    def wait_until_ready(self, patience_seconds: float = START_PATIENCE_SECONDS) -> None:
        self._child.wait_until(self._answers, patience_seconds)

    def stop(self, timeout_seconds: float = STOP_TIMEOUT_SECONDS) -> None:
        """Shut it down cleanly; kill it when that takes longer than the time given."""
        self._child.stop(timeout_seconds)

    def kill(self) -> None:
        """`kill -9`: the next start has everything that was answered."""
        self._child.kill()

    def _answers(self) -> bool:
        connection = HTTPConnection("127.0.0.1", self.port, timeout=PROBE_TIMEOUT_SECONDS)
        try:
            connection.request("GET", "/health/ready")
            answer = connection.getresponse()
            # On a port that is taken, somebody else's stand-in may answer.
            return answer.status == HTTPStatus.OK and json.load(answer).get("pid") == self.pid
        except (OSError, HTTPException, ValueError, AttributeError):
            return False
        finally:
            connection.close()

    def _secrets(self) -> dict[str, str]:
        file = self.directory / SECRETS_FILE
        try:
            held = json.loads(file.read_text())
            return {name: str(held[name]) for name in PREFIXES}
        except (FileNotFoundError, ValueError, KeyError, TypeError):
            made = {name: prefix + secrets.token_hex(16) for name, prefix in PREFIXES.items()}
        self.directory.mkdir(parents=True, exist_ok=True)
        fresh = file.with_suffix(".fresh")
        fresh.touch(mode=0o600)
        fresh.write_text(json.dumps(made))
        os.replace(fresh, file)
        return made
