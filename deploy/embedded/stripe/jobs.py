"""What happens by itself when its time comes: each in a transaction of its own, in order."""

import logging
from collections.abc import Callable

from deploy.embedded.stripe import checkout, invoices, subscriptions
from deploy.embedded.stripe.problems import Problem
from deploy.embedded.stripe.store import Thing
from deploy.embedded.stripe.world import World

log = logging.getLogger(__name__)

JOBS_MAX = 100_000
"""As many at one move of the clock; what is more is left for the next."""


def _expire(world: World, session: Thing) -> None:
    checkout.expire(world, {"id": session["id"]}, {})


def _finalize(world: World, invoice: Thing) -> None:
    if invoice["status"] == "draft":
        invoices.finalize(world, invoice)
        if invoice["status"] == "open":
            subscriptions.collect(world, invoice)


ACTIONS: dict[str, Callable[[World, Thing], None]] = {
    "expire": _expire,
    "finalize": _finalize,
    "renew": subscriptions.renew,
    "retry": subscriptions.collect,
    "upcoming": subscriptions.announce,
}


def run_due(world: World, until_s: int) -> int:
    """Everything due by then, each at its instant; how many there were."""
    for count in range(JOBS_MAX):
        job = world.store.next_job()
        if job is None or job[1] > until_s:
            return count
        position, due_s, action, subject = job
        with world.at(due_s):
            try:
                with world.change():
                    world.store.end_job(position)
                    thing = world.store.find(subject)
                    if thing is not None and not thing.get("deleted"):
                        ACTIONS[action](world, thing)
            except Problem as problem:
                # What it was for has gone meanwhile; it is not tried again.
                log.warning("%s of %s at %d: %s", action, subject, due_s, problem)
                with world.change():
                    world.store.end_job(position)
    return JOBS_MAX


def move_clock(world: World, instant_s: int, *, frozen: bool) -> int:
    """Forward only: what is due on the way happens on the way."""
    done = run_due(world, instant_s)
    with world.change():
        world.set_clock(instant_s, frozen=frozen)
    return done
