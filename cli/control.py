"""The control plane's database for commands: the same rules as by HTTP, without a key.

Whoever may read METERING_DATABASE_URL may do everything; the audit log tells the system's user.
"""

import getpass
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from cli.errors import Failure, Unreachable

if TYPE_CHECKING:
    from api.rules.change import Actor, Control
    from schemas.records import AssignedBy
    from schemas.settings import Settings


@contextmanager
def opened(settings: "Settings") -> "Iterator[Control]":
    """The control plane on its migrated database. Raises Failure where it is not migrated, and
    turns what the rules refuse into a Failure."""
    from api.errors import Refused
    from api.rules.change import Control
    from api.storage.revision import is_current
    from api.storage.store import Store, database_url, sqlite_file

    url = database_url(settings)
    file = sqlite_file(url)
    if file is not None and not file.exists():
        raise Unreachable(f"There is no control plane's database in {file}: `metering migrate`.")
    store = Store(url)
    try:
        if not is_current(store):
            raise Failure("The control plane's database is not migrated: `metering migrate`.")
        secret = settings.alias_secret.get_secret_value().encode()
        yield Control(store, lambda: datetime.now(UTC), secret)
    except Refused as refused:
        # What HTTP says of unknown things ends with whose key it is, and here is none.
        advice = "Check the id." if refused.code == "not_found" else refused.what_to_do
        raise Failure(f"{refused.message} {advice}".strip()) from refused
    finally:
        store.close()


def operator(how: "AssignedBy" = "manual") -> "Actor":
    """Whoever runs the command."""
    from api.rules.change import Actor

    return Actor(f"cli:{getpass.getuser()}", how)
