"""What the demo remembers in the data directory: `demo.json`.

Written before anything is done with it, so that a demo that was killed goes on as it began.
"""

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

STATE_FILE: Final = "demo.json"
DEMO_ORGANIZATION: Final = "org_acme"
"""The one of the demo's organizations for which `up` has an admin key."""
BUYING_GROUP: Final = "group_editors"
"""The one of its groups that pays by Stripe."""


class DemoState:
    """The time of the first start, and whether the past usage is acknowledged."""

    def __init__(self, data_dir: Path) -> None:
        self._path = data_dir / STATE_FILE
        if self._path.exists():
            document = json.loads(self._path.read_text(encoding="utf-8"))
        else:
            document = {"started_at": datetime.now(UTC).isoformat(), "past_sent": False}
        self.started_at = datetime.fromisoformat(document["started_at"])
        self.is_past_sent = bool(document["past_sent"])
        self._write()

    def past_is_sent(self) -> None:
        self.is_past_sent = True
        self._write()

    def _write(self) -> None:
        document = {"started_at": self.started_at.isoformat(), "past_sent": self.is_past_sent}
        fresh = self._path.with_suffix(".new")
        fresh.write_text(json.dumps(document) + "\n", encoding="utf-8")
        fresh.replace(self._path)
