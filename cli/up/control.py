"""What `up` asks of the control plane: keys for its user, and the demo's organizations.

Only while an API process is ready: it has compared the topics with the database by then, and where
the topics are ahead (a data directory of an older release) nothing is changed. All of it goes
through the rules in `api`, and may be interrupted and repeated at any moment.

The database has only hashes of keys: their secrets stay in the data directory, and a key that was
revoked is replaced at the next start.
"""

from datetime import UTC, datetime

from api.errors import Refused
from api.outbox.compare import TOPIC_AHEAD
from api.rules.keys import Scope
from api.seed import add_grants, ensure_key, seed_organization
from api.storage.ledgers import UNKNOWN_ORGANIZATION
from cli.configuration import ADMIN_KEY, OPERATOR_KEY
from cli.up import demo
from cli.up.data_dir import DataDirectory
from cli.up.demo_state import DEMO_ORGANIZATION, DemoState
from schemas.settings import Settings


def prepare(settings: Settings, directory: DataDirectory, *, with_demo: bool) -> str:
    """Why it cannot be done, in a line; empty where the keys, and the demo if wanted, are there."""
    try:
        _ensure(settings, directory, OPERATOR_KEY, Scope.OPERATOR, None)
        if with_demo:
            _seed_demo(settings, DemoState(directory.path))
            _ensure(settings, directory, ADMIN_KEY, Scope.ADMIN, DEMO_ORGANIZATION)
    except Refused as refused:
        advice = refused.what_to_do
        if refused.code in (TOPIC_AHEAD, UNKNOWN_ORGANIZATION):
            advice = "Run it in another terminal and start again, or take a fresh --data-dir."
        return f"control plane: {refused.message} {advice}"
    return ""


def _ensure(
    settings: Settings,
    directory: DataDirectory,
    name: str,
    scope: Scope,
    organization_id: str | None,
) -> None:
    ensure_key(
        settings,
        scope,
        organization_id,
        directory.secret(name),
        lambda secret: directory.keep_secret(name, secret),
    )


def _seed_demo(settings: Settings, state: DemoState) -> None:
    now = datetime.now(UTC)
    for company in demo.COMPANIES:
        seed = demo.seed(company, state.started_at, now)
        if seed_organization(settings, seed, demo.since(state.started_at)) is None:
            add_grants(settings, company.organization_id, seed.grants, lambda: datetime.now(UTC))
