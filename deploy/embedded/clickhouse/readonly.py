"""What a read-only user's statement may name, decided on the engine's own syntax tree.

The engine parses the statement (`parseQueryToJSON`), the tree is checked here, and what runs is
written from the checked tree (`formatQueryFromJSON`): comments, quoting and encodings of the text
as it was sent are gone by then, so there is no second lexer that could read it differently.

Everything is an allow-list, in a file below `access/`: kinds of nodes and their fields, functions,
table functions, tables of the engine's own database, settings. What a newer engine adds is refused
until somebody has looked.
Pure.
"""

import re
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

from deploy.embedded.clickhouse.allowed import allowed
from deploy.embedded.clickhouse.errors import readonly_refusal

FUNCTIONS: Final = allowed("functions")
TABLE_FUNCTIONS: Final = allowed("table_functions")
COMBINATORS: Final = allowed("combinators")
SYSTEM_TABLES: Final = allowed("system_tables")
EXPLAIN_OPTIONS: Final = allowed("explain_options")
STATEMENTS: Final = allowed("statements")
NODES: Final = STATEMENTS | allowed("nodes")
FIELDS: Final = allowed("fields")
# Stands for the kind of what is no node: a literal, a changed setting.
VALUE_FIELDS: Final = frozenset({"field_type", "name", "value"})

NAME: Final = r"(?:`[^`\\]+`|[A-Za-z_][A-Za-z_0-9]*)"
# Statements without a tree, in the engine's own spelling. Names in them are checked like all.
PLAIN_PATTERN: Final = re.compile(
    r"(?:SHOW CREATE (?:TABLE|VIEW|DATABASE)|EXISTS (?:TABLE|VIEW|DATABASE|DICTIONARY))"
    rf" (?P<name>{NAME}(?:\.{NAME})?)(?: FORMAT (?P<format>\w+))?"
    r"|SHOW (?:ENGINES|FUNCTIONS)(?: (?:LIKE|ILIKE) '[^'\\]*')?(?: FORMAT \w+)?"
)


def check_plain(statement: str) -> bool:
    """Whether it is one of the statements that have no tree; refuses what one may not name."""
    match = PLAIN_PATTERN.fullmatch(statement)
    if match is None:
        return False
    if match["name"]:
        parts = re.findall(NAME, match["name"])
        _check_name([part.strip("`") for part in parts], is_table=True)
    return True


def check_database(name: str) -> None:
    """A read-only user's own database; unqualified names are looked up in it."""
    if name.lower() == "system":
        raise readonly_refusal("The database system is not for read-only users; name its tables.")


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What decides about a statement besides its tree."""

    parameters: Mapping[str, str]
    """The values of `{name:Identifier}` and other parameters."""
    engine_functions: Collection[str]
    """All that the engine has, in lower case."""
    check_setting: Callable[[str, str], None]
    """Refuses a name with a value that a read-only user may not set."""


def check_tree(tree: Mapping[str, Any], surroundings: Surroundings) -> None:
    """Refuse the statement unless all it names is known to be harmless; `tree` is the engine's."""
    if str(tree.get("type")).lower() not in STATEMENTS:
        raise readonly_refusal(f"{tree.get('type')} is not for read-only users.")
    if tree["type"] == "ExplainQuery":
        explained = tree.get("query", {}).get("type")
        if explained != "SelectWithUnionQuery":
            raise readonly_refusal("Read-only users can explain a SELECT and nothing else.")
    for node, parent, field in _nodes(tree, {}, ""):
        _check_node(node, parent, field, surroundings)


def _nodes(
    node: Mapping[str, Any], parent: Mapping[str, Any], field: str
) -> Iterator[tuple[Mapping[str, Any], Mapping[str, Any], str]]:
    """All nodes with their parent and the parent's field; the engine limits the depth."""
    yield node, parent, field
    for name, inner in node.items():
        # A literal's own value, which may look like anything.
        if name != "value":
            for each in _inner_nodes(inner):
                yield from _nodes(each, node, name)


def _inner_nodes(inner: Any) -> Iterator[Mapping[str, Any]]:
    if isinstance(inner, list):
        for each in inner:
            yield from _inner_nodes(each)
    elif isinstance(inner, dict):
        if "type" in inner:
            yield inner
        elif set(inner) - VALUE_FIELDS:
            raise readonly_refusal("Not known to be harmless, so not for read-only users.")


def _check_node(
    node: Mapping[str, Any],
    parent: Mapping[str, Any],
    field: str,
    surroundings: Surroundings,
) -> None:
    kind = node["type"]
    unknown = sorted(set(node) - FIELDS)
    if kind.lower() not in NODES or unknown:
        what = ", ".join(unknown) or kind
        raise readonly_refusal(f"Not known to be harmless, so not for read-only users: {what}.")
    match kind:
        case "Function" if field == "table_function":
            _check_table_function(node["name"])
        case "Function":
            _check_function(node["name"])
        case "ColumnsApplyTransformer" if node.get("func_name"):
            _check_function(node["func_name"])
        case "Identifier":
            parts = list(_parts(node, surroundings.parameters))
            _check_name(parts, is_table=False)
            if field != "format_ast":
                _check_bare_name(parts, surroundings.engine_functions)
        case "TableIdentifier":
            _check_name(list(_parts(node, surroundings.parameters)), is_table=True)
        case "SetQuery":
            _check_changes(node, parent, surroundings.check_setting)
        case "ShowColumnsQuery" | "ShowIndexesQuery":
            _check_name([node.get("database", ""), node.get("table", "")], is_table=True)


def _check_function(name: str) -> None:
    base = name.lower()
    while base not in FUNCTIONS:
        ending = next((each for each in COMBINATORS if base.endswith(each)), None)
        if ending is None or base == ending:
            raise readonly_refusal(f"The function {name} is not for read-only users.")
        base = base.removesuffix(ending)


def _check_bare_name(parts: list[str], engine_functions: Collection[str]) -> None:
    """`arrayMap(file, …)` calls a function by its bare name, so a bare name may not be one."""
    name = parts[0].lower()
    if len(parts) == 1 and name in engine_functions and name not in FUNCTIONS:
        raise readonly_refusal(
            f"{parts[0]} also names a function that is not for read-only users; if it is a column,"
            " write it with its table before it."
        )


def _check_table_function(name: str) -> None:
    if name.lower() not in TABLE_FUNCTIONS:
        raise readonly_refusal(f"The table function {name} is not for read-only users.")


def _parts(node: Mapping[str, Any], parameters: Mapping[str, str]) -> Iterator[str]:
    """A name's parts, with parameters as they were sent."""
    values = iter(
        parameters.get(child.get("name", ""), "")
        for child in node.get("children", ())
        if child.get("type") == "QueryParameter"
    )
    for part in node.get("name_parts") or [node.get("name", "")]:
        # An empty part stands for the next parameter.
        name = part or next(values, "")
        yield from name.replace("`", "").replace('"', "").split(".")
    yield from (piece for value in values for piece in value.split("."))


def _check_name(parts: list[str], *, is_table: bool) -> None:
    """`system.one` may be named, `system.disks` not; other databases are the writer's own."""
    lowered = [part.strip().lower() for part in parts]
    for first, second in zip(lowered, [*lowered[1:], ""], strict=True):
        if first != "system":
            continue
        if not second and not is_table:
            continue
        if second not in SYSTEM_TABLES:
            raise readonly_refusal(f"The table {'.'.join(parts)} is not for read-only users.")


def _check_changes(
    node: Mapping[str, Any],
    parent: Mapping[str, Any],
    check_setting: Callable[[str, str], None],
) -> None:
    if node.get("default_settings"):
        raise readonly_refusal("DEFAULT for a setting is not for read-only users.")
    for change in node.get("changes", ()):
        name = change["name"]
        if parent.get("type") == "ExplainQuery" and name in EXPLAIN_OPTIONS:
            continue
        check_setting(name, setting_text(change["value"]))


def setting_text(field: Any) -> str:
    """A setting's value of the tree, as the HTTP interface would send it."""
    value = field.get("value") if isinstance(field, dict) else field
    if isinstance(value, bool):
        return "1" if value else "0"
    return str(value)
