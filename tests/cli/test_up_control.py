"""The keys and the demo that `up` makes through the rules: once, whatever interrupts it."""

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from sqlalchemy import func, select

from api.outbox.compare import TOPIC_AHEAD, TOPIC_BEHIND, Halt, write_halts
from api.rules.change import Control
from api.rules.groups import delete_group
from api.rules.keys import Scope, authenticate, revoke_key
from api.seed import SEEDER, add_grants, ensure_key, seed_organization, waiting_facts
from api.storage.ledgers import UNKNOWN_ORGANIZATION, ApiKey, Grant, OutboxFact
from api.storage.migrate import migrate
from api.storage.models import Member, Organization
from api.storage.store import Store, database_url
from cli.configuration import ADMIN_KEY, OPERATOR_KEY
from cli.up import demo
from cli.up.control import prepare
from cli.up.data_dir import DataDirectory
from cli.up.demo_state import DEMO_ORGANIZATION, DemoState
from schemas import codec
from schemas.settings import Settings
from tests.conftest import MakeSettings

ACME = demo.COMPANIES[0]
NOVEMBER = datetime(2026, 11, 21, tzinfo=UTC)


@pytest.fixture
def settings(make_settings: MakeSettings, tmp_path: Path) -> Settings:
    own_settings = make_settings(data_dir=tmp_path, alias_secret="sixteen characters")
    store = Store(database_url(own_settings))
    migrate(store)
    store.close()
    return own_settings


@pytest.fixture
def control(settings: Settings) -> Control:
    return Control(Store(database_url(settings)), lambda: datetime.now(UTC), b"secret")


def count(control: Control, table: type[object]) -> int:
    with control.store.read() as session:
        return session.scalar(select(func.count()).select_from(table)) or 0


def scope_of(control: Control, secret: str) -> tuple[str, str | None]:
    with control.store.read() as session:
        key = authenticate(session, secret, datetime.now(UTC))
    return key.scope, key.organization_id


def test_a_later_start_finds_everything_there(
    settings: Settings, control: Control, tmp_path: Path
) -> None:
    directory = DataDirectory(tmp_path)
    assert prepare(settings, directory, with_demo=True) == ""
    secrets = directory.secret(OPERATOR_KEY), directory.secret(ADMIN_KEY)
    assert scope_of(control, secrets[0]) == ("operator", None)
    assert scope_of(control, secrets[1]) == ("admin", DEMO_ORGANIZATION)
    tables = (Organization, Member, Grant, ApiKey, OutboxFact)
    counts = [count(control, table) for table in tables]
    assert prepare(settings, DataDirectory(tmp_path), with_demo=True) == ""
    assert [count(control, table) for table in tables] == counts
    assert (directory.secret(OPERATOR_KEY), directory.secret(ADMIN_KEY)) == secrets


def test_killed_between_two_organizations(
    settings: Settings, control: Control, tmp_path: Path
) -> None:
    started_at = DemoState(tmp_path).started_at
    seed = demo.seed(ACME, started_at, started_at)
    seed_organization(settings, seed, demo.since(started_at))
    assert prepare(settings, DataDirectory(tmp_path), with_demo=True) == ""
    assert count(control, Organization) == len(demo.COMPANIES)


def test_killed_while_a_key_is_made(settings: Settings, control: Control) -> None:
    kept: list[str] = []

    def die(secret: str) -> None:
        kept.append(secret)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        ensure_key(settings, Scope.OPERATOR, None, "", die)
    assert count(control, ApiKey) == 0
    ensure_key(settings, Scope.OPERATOR, None, kept[0], kept.append)
    assert scope_of(control, kept[1]) == ("operator", None)
    ensure_key(settings, Scope.OPERATOR, None, kept[1], die)


def test_a_revoked_key_is_replaced(settings: Settings, control: Control, tmp_path: Path) -> None:
    directory = DataDirectory(tmp_path)
    prepare(settings, directory, with_demo=False)
    former = directory.secret(OPERATOR_KEY)
    with control.transaction(SEEDER) as transaction:
        key = authenticate(transaction.session, former, datetime.now(UTC))
        revoke_key(transaction, key.id, None)
    prepare(settings, directory, with_demo=False)
    assert directory.secret(OPERATOR_KEY) != former
    assert scope_of(control, directory.secret(OPERATOR_KEY)) == ("operator", None)


def test_the_usage_of_the_past_finds_its_members_prices_and_grants(
    settings: Settings, control: Control
) -> None:
    """All facts are recorded before the first usage, in the order of their versions."""
    seed_organization(settings, demo.seed(ACME, NOVEMBER, NOVEMBER), demo.since(NOVEMBER))
    first_usage = NOVEMBER - timedelta(days=demo.PAST_DAYS)
    with control.store.read() as session:
        rows = session.scalars(select(OutboxFact).order_by(OutboxFact.id)).all()
    members = [codec.decode_membership(row.payload) for row in rows if row.topic == "memberships"]
    credits = [codec.decode_credit(row.payload) for row in rows if row.topic == "credits"]
    assert max(fact.effective_at for fact in members) < first_usage
    assert min(fact.effective_at for fact in credits) < first_usage
    assert waiting_facts(settings, [ACME.organization_id]) == len(rows)
    assert waiting_facts(settings, ["org_other"]) == 0
    ages_s = [(datetime.now(UTC) - row.created_at).total_seconds() for row in rows]
    assert max(ages_s) < 60


def test_months_that_came_since_get_their_grants(settings: Settings, control: Control) -> None:
    seed_organization(settings, demo.seed(ACME, NOVEMBER, NOVEMBER), demo.since(NOVEMBER))
    before = count(control, Grant)
    with control.change(ACME.organization_id, SEEDER) as change:
        delete_group(change, "group_marketing")
    february = NOVEMBER + timedelta(days=80)
    grants = list(demo.grants(ACME, NOVEMBER, february))
    added = add_grants(settings, ACME.organization_id, grants, lambda: february)
    # January, February and March: one group and two websites; the other group is gone.
    assert added == 9
    assert count(control, Grant) == before + added
    assert add_grants(settings, ACME.organization_id, grants, lambda: february) == 0


@pytest.mark.parametrize(
    ("code", "advice"),
    [
        (TOPIC_AHEAD, "take a fresh --data-dir"),
        (UNKNOWN_ORGANIZATION, "take a fresh --data-dir"),
        (TOPIC_BEHIND, "Try again"),
    ],
)
def test_where_nothing_may_be_changed_it_says_why(
    settings: Settings, control: Control, tmp_path: Path, code: str, advice: str
) -> None:
    with control.store.write() as session:
        halt = Halt(ACME.organization_id, "memberships", code, "It is ahead.")
        write_halts(session, [halt], NOVEMBER)
    said = prepare(settings, DataDirectory(tmp_path), with_demo=True)
    assert said.startswith("control plane: It is ahead.")
    assert advice in said
    assert "\n" not in said
    assert count(control, Organization) == 0
