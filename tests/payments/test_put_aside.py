"""What cannot be granted, or does not fit, is put aside and comes out right in the end."""

import pytest

from api.errors import Refused
from api.outbox import compare
from api.payments.seen import Seen
from api.payments.settling import place_renewal, revision_of
from api.rules import bounds
from api.rules.change import Control
from api.rules.credits import NewGrant, grant
from api.rules.groups import delete_group
from tests.api.conftest import ADMIN, Clock
from tests.payments import pictures
from tests.payments.purchases import MONTH, START, grants, look, new_purchase, paid_session
from tests.payments.written import purchase_row, unmatched, worker_of

PAID = Seen("stripe", paid_session())
FIRST = pictures.monthly("active@1 1:paid")


def refunded(packages: int) -> Seen:
    return pictures.one_time(f"paid r={packages}")


def test_a_deleted_group_takes_no_credits_and_says_so(control: Control) -> None:
    key = new_purchase(control)
    with control.change("org_a", ADMIN) as change:
        delete_group(change, "group_a")
    first = look(control, key, PAID)
    assert [problem.code for problem in first.problems] == ["cannot_grant"]
    assert unmatched(control) == {
        "checkout.session cs_1": "cannot_grant: 3 credits were paid for and cannot be granted to "
        "group 'group_a': There is no group 'group_a'."
    }
    assert (purchase_row(control, key).state, grants(control)) == ("paid", {})
    assert look(control, key, PAID).differences == ()
    assert look(control, key, refunded(3)).differences == ("checkout.session cs_1 fits again",)
    assert unmatched(control) == {}


def test_refunds_of_a_deleted_group_go_on(control: Control) -> None:
    """Its pool owes nothing: the worker puts it down as uncollected."""
    key = new_purchase(control)
    look(control, key, PAID)
    with control.change("org_a", ADMIN) as change:
        delete_group(change, "group_a")
    look(control, key, refunded(2))
    assert grants(control) == {"stripe:cs_1": (3_000_000, 1_000_000)}
    pool = worker_of(control).pool("group", "group_a", "org_a")
    assert (pool.balance_micro, pool.debt_micro) == (0, 0)
    given_back = look(control, key, refunded(1))
    assert [problem.code for problem in given_back.problems] == ["cannot_grant"]


def test_a_renewal_of_a_deleted_group_is_only_missed_when_it_is_paid(control: Control) -> None:
    key = new_purchase(control, "monthly")
    look(control, key, FIRST)
    with control.change("org_a", ADMIN) as change:
        delete_group(change, "group_a")
    assert place_renewal(control, key, "sub_1", START + MONTH, START + 2 * MONTH) is None
    assert look(control, key, pictures.monthly("active@2 1:paid 2:open")).problems == ()
    paid = look(control, key, pictures.monthly("active@2 1:paid 2:paid"))
    assert [problem.object_id for problem in paid.problems] == ["in_2"]


def test_a_full_pool_takes_no_credits_and_says_so(
    control: Control, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bounds, "POOL_GRANTS_MAX", 1)
    key = new_purchase(control)
    look(control, key, PAID)
    other = new_purchase(control, purchase_id="pur_2", session_id="cs_2")
    second = look(control, other, Seen("stripe", paid_session(id="cs_2")))
    assert [problem.code for problem in second.problems] == ["cannot_grant"]
    assert list(grants(control)) == ["stripe:cs_1"]


def test_a_grant_made_by_hand_under_that_id_is_told(control: Control) -> None:
    key = new_purchase(control)
    with control.change("org_a", ADMIN) as change:
        named = NewGrant("group", "group_a", "one_time", 1, "admin:x", grant_id="stripe:cs_1")
        grant(change, named)
    assert "There is a grant" in look(control, key, PAID).problems[0].message


def test_while_an_organization_is_halted_it_is_tried_later(control: Control, clock: Clock) -> None:
    key = new_purchase(control, "monthly")
    look(control, key, FIRST)
    with control.store.write() as session:
        halt = compare.Halt("org_a", "credits", compare.TOPIC_AHEAD, "ahead")
        compare.write_halts(session, [halt], clock())
    with pytest.raises(Refused) as refused:
        look(control, key, pictures.monthly("active@2 1:paid 2:paid"))
    assert refused.value.status == 503
    with pytest.raises(Refused):
        place_renewal(control, key, "sub_1", START + MONTH, START + 2 * MONTH)
    assert revision_of(control, key) == 1


def test_what_belongs_to_another_purchase_is_put_aside(control: Control) -> None:
    mine = new_purchase(control, "monthly")
    other = new_purchase(control, "monthly", purchase_id="pur_2", session_id="cs_2")
    look(control, mine, FIRST)
    strange = look(control, other, FIRST)
    assert {problem.code for problem in strange.problems} == {"of_another_purchase"}
    assert sorted(unmatched(control)) == [
        "checkout.session cs_1",
        "invoice in_1",
        "subscription sub_1",
    ]
    assert list(grants(control)) == ["stripe:in_1:il_1"]
    assert look(control, mine, FIRST).problems == ()
    assert unmatched(control) == {}
