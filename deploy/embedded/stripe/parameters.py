"""Form-encoded parameters, nested by brackets, checked against the types of Stripe's own library.

The library is made from Stripe's OpenAPI description; its `…Params` classes say which parameters a
request may have and of which type. So nothing that Stripe would refuse is taken here. What Stripe
takes and the stand-in does not do is refused too, by name: it must not seem to work.
"""

import re
import sys
import types
from collections.abc import Iterable
from functools import cache
from typing import Any, Literal, NotRequired, Union, get_args, get_origin, get_type_hints
from urllib.parse import parse_qsl

from stripe._request_options import RequestOptions

from deploy.embedded.stripe.problems import Problem, missing_parameter, unknown_parameter

PIECE = re.compile(r"\[([^\]]*)\]")
DEPTH_MAX = 8
PARAMETERS_MAX = 1_000
METADATA_KEYS_MAX, METADATA_KEY_MAX, METADATA_VALUE_MAX = 50, 40, 500
OPTIONS = frozenset(RequestOptions.__annotations__)
_MISFIT = object()


def parse_form(text: str) -> dict[str, Any]:
    """`a[b][0][c]=1` as nested dictionaries and lists."""
    try:
        pairs = parse_qsl(text, keep_blank_values=True, max_num_fields=PARAMETERS_MAX)
    except ValueError:
        raise Problem(f"More than {PARAMETERS_MAX} parameters.") from None
    tree: dict[str, Any] = {}
    for name, value in pairs:
        first = name.split("[", 1)[0]
        path = [first, *PIECE.findall(name[len(first) :])]
        if len(path) > DEPTH_MAX:
            raise Problem(f"Too deeply nested: {name}")
        _put(tree, path, value, name)
    return {name: _with_lists(value) for name, value in tree.items()}


def _put(tree: dict[str, Any], path: list[str], value: str, name: str) -> None:
    for piece in path[:-1]:
        tree = tree.setdefault(piece, {})
        if not isinstance(tree, dict):
            raise Problem(f"Invalid parameters: {name} is given in two ways.", param=name)
    last = path[-1] if path[-1] or len(path) == 1 else str(len(tree))
    tree[last] = value


def _with_lists(value: Any) -> Any:
    if not isinstance(value, dict):
        return value
    held = {name: _with_lists(part) for name, part in value.items()}
    if held and all(name.isdigit() for name in held):
        return [held[name] for name in sorted(held, key=int)]
    return held


def checked(
    given: dict[str, Any], description: type | None, supported: Iterable[str] | None = None
) -> dict[str, Any]:
    """The parameters in their types. Raises `Problem` for what Stripe would refuse, and for names
    outside `supported` (None: all), of which the stand-in would have to ignore the meaning."""
    fields, required = _fields(description) if description else ({}, frozenset())
    for name in given:
        if name not in fields and name != "expand":
            raise unknown_parameter(name)
    taken = {name: _value(given[name], fields.get(name, list[str]), name) for name in given}
    for name in sorted(required - set(taken)):
        raise missing_parameter(name)
    if supported is not None:
        for name in sorted(set(taken) - {"expand", "metadata"} - set(supported)):
            raise Problem(f"The stand-in for Stripe does not do what {name} asks.", param=name)
    return taken


@cache
def _fields(description: type) -> tuple[dict[str, Any], frozenset[str]]:
    """Type of each parameter, and which are required."""
    names: dict[str, Any] = vars(sys.modules[description.__module__])
    hints = get_type_hints(
        description, {**names, "StripeContext": str}, {"Mapping": dict}, include_extras=True
    )
    fields, required = {}, set()
    for name, hint in hints.items():
        if name in OPTIONS:
            continue
        name = name.rstrip("_")  # `from_` and the like are words of Python
        origin: Any = get_origin(hint)
        if origin is NotRequired:
            (hint,) = get_args(hint)
        else:
            required.add(name)
        fields[name] = hint
    return fields, frozenset(required)


def _value(given: Any, wanted: Any, path: str) -> Any:
    origin: Any = get_origin(wanted)
    choices = get_args(wanted) if origin in (Union, types.UnionType) else (wanted,)
    if any(any(_words_of(choice)) for choice in choices):
        # The library leaves enumerations open for what comes later; Stripe does not.
        choices = tuple(choice for choice in choices if choice is not str)
    # An empty string unsets, where Stripe allows it; a number is one before it is text.
    ranked = sorted(choices, key=lambda choice: (choice is str, not _words_of(choice)))
    for choice in ranked:
        taken = _as(given, choice, path)
        if taken is not _MISFIT:
            return taken
    raise _misfit(given, choices, path)


def _as(given: Any, wanted: Any, path: str) -> Any:
    origin: Any = get_origin(wanted)
    if origin is Literal:
        return given if given in get_args(wanted) else _MISFIT
    if wanted is str:
        return given if isinstance(given, str) else _MISFIT
    if wanted is bool:
        return {"true": True, "false": False}.get(_text(given), _MISFIT)
    if wanted is int:
        return int(given) if re.fullmatch(r"-?\d{1,18}", _text(given)) else _MISFIT
    if wanted is float or getattr(wanted, "__name__", "") == "Decimal":
        return given if re.fullmatch(r"-?\d+(\.\d+)?", _text(given)) else _MISFIT
    if origin is list:
        if not isinstance(given, list):
            return _MISFIT
        (item,) = get_args(wanted)
        return [_value(part, item, f"{path}[{number}]") for number, part in enumerate(given)]
    if origin is dict:
        return _words(given, path) if isinstance(given, dict) else _MISFIT
    if isinstance(wanted, type) and hasattr(wanted, "__total__"):
        return _nested(given, wanted, path) if isinstance(given, dict) else _MISFIT
    return _MISFIT


def _words_of(wanted: Any) -> tuple[Any, ...]:
    """Those of a Literal; none of anything else."""
    origin: Any = get_origin(wanted)
    return get_args(wanted) if origin is Literal else ()


def _text(given: Any) -> str:
    return given if isinstance(given, str) else ""


def _nested(given: dict[str, Any], description: type, path: str) -> dict[str, Any]:
    fields, required = _fields(description)
    for name in given:
        if name not in fields:
            raise unknown_parameter(f"{path}[{name}]")
    for name in sorted(required - set(given)):
        raise missing_parameter(f"{path}[{name}]")
    return {name: _value(part, fields[name], f"{path}[{name}]") for name, part in given.items()}


def _words(given: dict[str, Any], path: str) -> dict[str, Any]:
    """Metadata. https://docs.stripe.com/api/metadata"""
    if len(given) > METADATA_KEYS_MAX:
        raise Problem(f"{path} can have {METADATA_KEYS_MAX} keys at most.", param=path)
    for name, value in given.items():
        if not isinstance(value, str):
            raise Problem(f"Metadata values must be strings: {path}[{name}]", param=path)
        if len(name) > METADATA_KEY_MAX or len(value) > METADATA_VALUE_MAX:
            raise Problem(f"{path}[{name}] is too long.", param=f"{path}[{name}]")
    return given


def _misfit(given: Any, choices: Iterable[Any], path: str) -> Problem:
    words = [word for choice in choices for word in _words_of(choice)]
    if words:
        return Problem(
            f"Invalid {path}: must be one of {', '.join(filter(None, words))}", param=path
        )
    if any(choice is int for choice in choices):
        return Problem(f"Invalid integer: {given}", code="parameter_invalid_integer", param=path)
    return Problem(f"Invalid value for {path}.", param=path)
