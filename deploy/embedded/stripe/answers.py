"""Answers: lists with their filters and pages, and `expand`.

https://docs.stripe.com/api/pagination, https://docs.stripe.com/expand
"""

import copy
import fnmatch
from collections.abc import Callable, Iterable, Iterator, Mapping
from itertools import islice
from typing import Any

from deploy.embedded.stripe import checkout
from deploy.embedded.stripe.problems import Problem, missing
from deploy.embedded.stripe.shapes import list_of
from deploy.embedded.stripe.store import Thing
from deploy.embedded.stripe.world import World

LIMIT, LIMIT_MAX = 10, 100
DEPTH_MAX = 4
COMPARED: dict[str, Callable[[int, int], bool]] = {
    "gt": lambda value, bound: value > bound,
    "gte": lambda value, bound: value >= bound,
    "lt": lambda value, bound: value < bound,
    "lte": lambda value, bound: value <= bound,
}
PAGING = ("limit", "starting_after", "ending_before")

Filters = Mapping[str, Callable[[Thing, Any], bool]]


def first_page(things: Iterable[Thing], params: Thing, url: str) -> Thing:
    """No more of them is read than the page needs."""
    limit = _limit(params)
    held = list(islice((thing for thing in things if not thing.get("deleted")), limit + 1))
    return list_of(held[:limit], url, has_more=len(held) > limit)


def page(things: Iterable[Thing], params: Thing, url: str) -> Thing:
    """`things` are newest first, as every list of Stripe's."""
    held = [thing for thing in things if not thing.get("deleted")]
    limit = _limit(params)
    ids = [thing["id"] for thing in held]
    if "starting_after" in params:
        begin = _place(ids, params["starting_after"], "starting_after") + 1
        return list_of(held[begin : begin + limit], url, has_more=len(held) > begin + limit)
    if "ending_before" in params:
        end = _place(ids, params["ending_before"], "ending_before")
        begin = max(0, end - limit)
        return list_of(held[begin:end], url, has_more=begin > 0)
    return list_of(held[:limit], url, has_more=len(held) > limit)


def _limit(params: Thing) -> int:
    limit = int(params.get("limit", LIMIT))
    if not 1 <= limit <= LIMIT_MAX:
        raise Problem(f"Invalid limit: must be between 1 and {LIMIT_MAX}.", param="limit")
    return limit


def matching(things: Iterable[Thing], params: Thing, filters: Filters) -> Iterator[Thing]:
    given = [(filters[name], value) for name, value in params.items() if name in filters]
    return (thing for thing in things if all(fits(thing, value) for fits, value in given))


def equal(*path: str) -> Callable[[Thing, Any], bool]:
    return lambda thing, value: _at(thing, path) == value


def within(*path: str) -> Callable[[Thing, Any], bool]:
    """An instant, or a range of instants."""

    def fits(thing: Thing, value: Any) -> bool:
        held = _at(thing, path)
        if not isinstance(value, dict):
            return bool(held == value)
        return all(COMPARED[name](held, bound) for name, bound in value.items())

    return fits


def like(name: str) -> Callable[[Thing, Any], bool]:
    """Words of an event's type, where `*` stands for any."""
    return lambda thing, value: fnmatch.fnmatchcase(thing[name], value)


def one_of(name: str) -> Callable[[Thing, Any], bool]:
    return lambda thing, value: thing[name] in value


def expanded(world: World, answer: Thing, paths: list[str]) -> Thing:
    if not paths:
        return answer
    held = copy.deepcopy(answer)
    for path in paths:
        parts = path.split(".")
        if len(parts) > DEPTH_MAX:
            raise Problem(f"You cannot expand more than {DEPTH_MAX} levels of a property.")
        _expand(world, held, parts, path)
    return held


def _expand(world: World, value: Any, parts: list[str], path: str) -> None:
    if not parts or value is None:
        return
    if isinstance(value, list):
        for item in value:
            _expand(world, item, parts, path)
        return
    if not isinstance(value, dict):
        raise _unexpandable(path)
    name, rest = parts[0], parts[1:]
    included = INCLUDED.get((value.get("object", ""), name))
    if name not in value and value.get("deleted"):
        return
    if name not in value and included is not None:
        value[name] = included(world, value)
    elif isinstance(value.get(name), str):
        found = world.store.find(value[name])
        value[name] = "" if found is None else copy.deepcopy(found)
    held = value.get(name, "")
    is_plain = held is not None and not isinstance(held, dict | list)
    # A hash that is no object of its own is always shown.
    if is_plain or (isinstance(held, dict) and not rest and "object" not in held):
        raise _unexpandable(path)
    _expand(world, held, rest, path)


def _unexpandable(path: str) -> Problem:
    return Problem(f"This property cannot be expanded ({path}).", param="expand")


def _line_items(world: World, session: Thing) -> Thing:
    items = checkout.line_items(world, session)
    return list_of(items[:LIMIT], f"/v1/checkout/sessions/{session['id']}/line_items")


def _children(kind: str, name: str) -> Callable[[World, Thing], Thing]:
    def of(world: World, parent: Thing) -> Thing:
        found = world.all(kind, **{name: parent["id"]})[::-1]
        url = f"/v1/{kind}s?{name}={parent['id']}"
        return list_of(found[:LIMIT], url, has_more=len(found) > LIMIT)

    return of


INCLUDED: dict[tuple[str, str], Callable[[World, Thing], Thing]] = {
    ("checkout.session", "line_items"): _line_items,
    ("invoice", "payments"): _children("invoice_payment", "invoice"),
    ("charge", "refunds"): _children("refund", "charge"),
    ("customer", "subscriptions"): _children("subscription", "customer"),
}
"""Lists that an object only has when they are asked for."""


def _place(ids: list[str], identifier: str, param: str) -> int:
    if identifier not in ids:
        raise missing("object", identifier, param)
    return ids.index(identifier)


def _at(thing: Any, path: tuple[str, ...]) -> Any:
    for name in path:
        thing = (thing or {}).get(name)
    return thing
