"""Looking users up by name reads one row by its index, however many users there are."""

import json
from datetime import UTC, datetime

import pytest
from scim2_models import ScimFilter
from sqlalchemy import Select, select, text
from sqlalchemy.orm import Session

from api.rules.change import Control
from api.rules.members import NewMember, create_member
from api.rules.names import fold
from api.scim.quirks import POLICY
from api.scim.resources import ScimUser
from api.scim.service import Question, list_users, narrowed_users
from api.storage.bulk import insert_rows
from api.storage.models import Member
from tests.api.conftest import ADMIN

MEMBERS = 3_000
ZOE = "zoe\u0308@example.com"


@pytest.fixture
def many(control: Control) -> Control:
    now = datetime(2026, 11, 1, tzinfo=UTC)
    rows = [
        {
            "organization_id": "org_a",
            "id": f"m{number}",
            "kind": "person",
            "email": f"m{number}@example.com",
            "email_folded": f"m{number}@example.com",
            "name": "",
            "role": "member",
            "active": True,
            "user_name": f"CORP\\m{number}" if number % 2 else None,
            "user_name_folded": f"corp\\m{number}" if number % 2 else None,
            "created_at": now,
            "updated_at": now,
        }
        for number in range(MEMBERS)
    ]
    with control.store.write() as session:
        insert_rows(session, Member, rows)
        session.execute(text("ANALYZE"))
    with control.change("org_a", ADMIN) as change:
        create_member(change, NewMember(fold(ZOE), member_id="zoe"))
    return control


def steps_of(session: Session, query: Select[tuple[Member]]) -> str:
    """The database's own plan for the query."""
    sql = str(query.compile(session.connection(), compile_kwargs={"literal_binds": True}))
    sql = sql.replace("%%", "%")
    if session.get_bind().dialect.name == "sqlite":
        rows = session.connection().exec_driver_sql(f"EXPLAIN QUERY PLAN {sql}")
        return "\n".join(str(row[3]) for row in rows)
    rows = session.connection().exec_driver_sql(f"EXPLAIN {sql}")
    return "\n".join(str(row[0]) for row in rows)


@pytest.mark.parametrize("more", ["", " and active eq true"])
def test_user_names_are_found_by_their_index(many: Control, more: str) -> None:
    with POLICY:
        matcher = ScimFilter[ScimUser](f'userName eq "m4@example.com"{more}')
    with many.store.read() as session:
        present = select(Member).where(Member.organization_id == "org_a", Member.active)
        steps = steps_of(session, narrowed_users(present, "org_a", matcher))
    for index in ("uq_members_user_name", "uq_members_email"):
        assert index in steps, steps
    assert "SCAN members" not in steps, steps
    assert "Seq Scan on members" not in steps, steps


@pytest.mark.parametrize(
    ("user_name", "member_id"),
    [("M4@example.com", "m4"), ("corp\\M5", "m5"), (ZOE, "zoe"), ("m5@example.com", None)],
)
def test_a_name_is_found_however_it_is_written(
    many: Control, user_name: str, member_id: str | None
) -> None:
    question = Question(filter=f"userName eq {json.dumps(user_name)}")
    with many.store.read() as session:
        answer = list_users(session, "org_a", question, "https://x")
    assert [one["id"] for one in answer.get("Resources", [])] == ([member_id] if member_id else [])
