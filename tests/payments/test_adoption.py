"""Grants whose purchase was lost with a backup are found again by what their ids say."""

from collections.abc import Callable

from sqlalchemy import delete, update

from api.payments.settling import PurchaseKey, place_renewal
from api.rules.change import Control
from api.rules.credits import NewGrant, grant
from api.storage.purchases import BoughtGrant, Invoice, Purchase, Subscription
from tests.api.conftest import ADMIN
from tests.decisions.tables import table
from tests.payments import pictures
from tests.payments.purchases import MONTH, START, grants, look, new_purchase
from tests.payments.written import bought, left_in_pool


def forget(control: Control, key: PurchaseKey) -> None:
    """The purchase is as it was made, and its grants are nobody's."""
    with control.store.write() as session:
        for model in (BoughtGrant, Invoice, Subscription):
            session.execute(delete(model))
        session.execute(
            update(Purchase)
            .where(Purchase.id == key.purchase_id)
            .values(state="created", session_id=None, revision=0)
        )


@table("""
    seen                                                               | last
    paid                                                               | paid
    paid                                                               | paid r=1
    paid                                                               | paid r=3
    paid;paid r=3;paid                                                 | paid
    paid;paid d1=o1;paid d1=w1                                         | paid d1=w1
    paid;paid d1=o3;paid d1=w3                                         | paid r=2 d1=w3
    paid d1=o1                                                         | paid d1=w1
    active@1 1:paid                                                    | active@1 1:paid
    active@1 1:paid;active@1 1:paid d1=o3                              | active@1 1:paid d1=w3
    active@2 2:draft                                                   | active@2 2:void
    active@1;place;active@2 2:draft                                    | active@2 2:paid
    active@1;place                                                     | active@2 2:paid
    active@1;place                                                     | active@1
    active@1;place;active-@1;active@1                                  | active@1
    active@1;place;active@2 2:paid d1=o3;active@2 2:paid d1=w3         | active@2 2:paid r=1 d1=w3
""")
def test_what_was_lost_is_found_and_goes_on(
    seen: str, last: str, new_plane: Callable[[], Control]
) -> None:
    """As if nothing had been lost: the same grants of the same payments, and the same sum."""
    ends = []
    kind = "monthly" if "@" in seen else "one_time"
    for is_lost in (False, True):
        control = new_plane()
        key = new_purchase(control, kind)
        for text in seen.split(";"):
            if text == "place":
                start = START + MONTH
                assert place_renewal(control, key, "sub_1", start, start + MONTH)
            else:
                look(control, key, getattr(pictures, kind)(text))
        if is_lost:
            forget(control, key)
        settled = look(control, key, getattr(pictures, kind)(last))
        assert settled.problems == ()
        assert look(control, key, getattr(pictures, kind)(last)).differences == ()
        ends.append((grants(control), bought(control), left_in_pool(control)))
    assert ends[0] == ends[1]


def test_a_grant_by_hand_is_not_the_purchase_s(sqlite_control: Control) -> None:
    control = sqlite_control
    key = new_purchase(control)
    with control.change("org_a", ADMIN) as change:
        by_hand = NewGrant("group", "group_a", "one_time", 1, "admin:x", grant_id="stripe:cs_1")
        grant(change, by_hand)
    assert [problem.code for problem in look(control, key, pictures.one_time("paid")).problems] == [
        "cannot_grant"
    ]
    assert bought(control) == {}
