"""A seeded organization is there as of its time, once."""

from datetime import UTC, datetime

from api.rules.credits import NewGrant
from api.rules.keys import Scope
from api.rules.members import NewMember
from api.rules.prices import NewPrice
from api.seed import Seed, seed_organization
from api.storage.migrate import migrate
from api.storage.store import Store, database_url
from schemas import codec
from tests.conftest import MakeSettings


def test_a_seed_takes_root_once(make_settings: MakeSettings) -> None:
    settings = make_settings()
    store = Store(database_url(settings))
    migrate(store)
    at = datetime(2026, 11, 1, tzinfo=UTC)
    seed = Seed(
        "org_demo",
        "Demo",
        groups={"group_lab": "Lab"},
        members=[NewMember("ann@example.com", "Ann", member_id="ann")],
        places={"ann": "group_lab"},
        websites={"web_1": ("shop.example.com", "group_lab")},
        prices=[NewPrice("ai.tokens", 1_000_000)],
        grants=[NewGrant("group", "group_lab", "one_time", 5_000_000, "admin:seed")],
        keys=(Scope.ADMIN, Scope.INGEST),
    )
    secrets = seed_organization(settings, seed, at)
    assert secrets is not None
    assert set(secrets) == {"admin", "ingest"}
    assert seed_organization(settings, seed, at) is None
    with store.engine.connect() as connection:
        rows = connection.exec_driver_sql(
            "SELECT payload FROM outbox WHERE topic = 'memberships' ORDER BY version"
        ).all()
    facts = [codec.decode_membership(row[0]) for row in rows]
    assert {fact.effective_at for fact in facts} == {at}
    assert [fact.version for fact in facts] == list(range(1, len(facts) + 1))
    store.close()
