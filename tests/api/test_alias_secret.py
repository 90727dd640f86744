"""An address that the control plane hashes is one that the worker finds, as both are configured
without a word."""

from datetime import UTC, datetime, timedelta
from pathlib import Path

import msgspec
import pytest
from sqlalchemy import select

from api.rules.members import NewMember, create_member
from api.rules.organizations import OrganizationSettings, create_organization
from api.storage.ledgers import OutboxFact
from api.storage.migrate import migrate
from api.storage.store import Store, database_url
from cli.control import opened
from schemas import topics
from schemas.records import PriceSet
from schemas.settings import Settings
from streams.steps import FactStep, UsageStep
from tests.api.conftest import ADMIN
from tests.streams.partition import NOW, Partition, Record, usage


@pytest.mark.parametrize("secret", [None, "", "a secret of many characters"])
def test_aliases_resolve_end_to_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, secret: str | None
) -> None:
    monkeypatch.delenv("METERING_ALIAS_SECRET", raising=False)
    if secret is not None:
        monkeypatch.setenv("METERING_ALIAS_SECRET", secret)
    settings = Settings(data_dir=tmp_path)
    store = Store(database_url(settings))
    migrate(store)
    store.close()
    with opened(settings) as control:
        with control.transaction(ADMIN) as transaction:
            change = create_organization(transaction, "A", OrganizationSettings(), "org_7", NOW)
            create_member(change, NewMember("Ann@example.com", member_id="ann"))
            change.membership_fact(PriceSet("ai.tokens", 1_000_000), NOW)
        with control.store.read() as session:
            facts = session.scalars(select(OutboxFact.payload).order_by(OutboxFact.id)).all()

    partition = Partition(tmp_path / "worker")
    try:
        records = [Record(fact, offset=number) for number, fact in enumerate(facts)]
        applied = partition.run(FactStep(topics.MEMBERSHIPS, settings), *records)
        assert len(applied.of(topics.FACTS_APPLIED)) == len(facts)
        soon = datetime.now(UTC) + timedelta(seconds=1)
        event = usage(subject="ann@EXAMPLE.com", timestamp=int(soon.timestamp() * 1000))
        rated = partition.run(UsageStep(settings), event)
    finally:
        partition.store.close()
    (row,) = rated.of(topics.USAGE_RATED)
    rated_row = msgspec.json.decode(row[2])
    assert (rated_row["member_id"], rated_row["resolved_by"]) == ("ann", "alias")
