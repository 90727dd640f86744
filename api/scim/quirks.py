"""What Okta and Entra really send, turned into what the standard means (`facts.md` §3).

Pure. Case of `op`, removal with a value, dotted keys and unmatched `emails[…]` paths are read
tolerantly by scim2-models itself (`POLICY`); this is the rest.
"""

import re
from typing import Any, Final

from scim2_models import ScimPolicy

from api.scim import managers

POLICY: Final = ScimPolicy(
    unknown=ScimPolicy.Unknown.ignore,
    remove_value_as_filter=ScimPolicy.RemoveValue.apply,
    unmatched_path_filter=ScimPolicy.UnmatchedPathFilter.create,
)

READ_ONLY: Final = frozenset({"id", "meta", "schemas", "groups", "password"})
UNQUOTED: Final = re.compile(r"\s*([\w.:]+)\s+eq\s+([^\s\"()\[\]]+)\s*\Z", re.IGNORECASE)
ONE_MEMBER: Final = re.compile(
    r"\s*members\[\s*value\s+eq\s+\"([^\"\\]+)\"\s*\]\s*\Z", re.IGNORECASE
)
PATCH_SCHEMA: Final = "urn:ietf:params:scim:api:messages:2.0:PatchOp"
LITERALS: Final = frozenset({"true", "false", "null"})


def clean_resource(document: dict[str, Any], known_schemas: frozenset[str]) -> dict[str, Any]:
    """A resource as it was posted or put: Entra names a schema of its own, and booleans as text;
    both send a password, which is never kept."""
    cleaned = {name: value for name, value in document.items() if name.lower() != "password"}
    schemas = cleaned.get("schemas")
    if isinstance(schemas, list):
        texts = [one for one in schemas if isinstance(one, str)]
        cleaned["schemas"] = [one for one in texts if one.lower() in known_schemas] or schemas
    return managers.clean_values(_clean_values(cleaned))


def clean_operations(document: dict[str, Any]) -> dict[str, Any]:
    """A PATCH: Okta repeats the id in a rename, Entra writes `"False"` and `$ref: null`."""
    name = next((key for key in document if key.lower() == "operations"), "Operations")
    operations = document.get(name)
    if not isinstance(operations, list):
        return document
    cleaned = [
        _clean_operation(operation) if isinstance(operation, dict) else operation
        for operation in operations
    ]
    cleaned_operations: list[Any] = []
    for operation in cleaned:
        if isinstance(operation, dict):
            cleaned_operations.extend(managers.whole(operation))
        elif operation is not None:
            cleaned_operations.append(operation)
    return {**document, name: cleaned_operations}


def _clean_operation(operation: dict[str, Any]) -> dict[str, Any] | None:
    """None for an operation of which nothing is left: it would only have repeated an id."""
    path, value = operation.get("path"), operation.get("value")
    if isinstance(path, str) and path.strip().lower() == "active":
        return {**operation, "value": _boolean(value)}
    if isinstance(path, str) and path.strip().lower() == "password":
        return None
    if not path and isinstance(value, dict):
        rest = {key: one for key, one in value.items() if key.lower() not in READ_ONLY}
        if value and not rest:
            return None
        return {key: one for key, one in operation.items() if key != "path"} | {
            "value": managers.clean_values(_clean_values(rest))
        }
    if isinstance(path, str) and path.strip().lower() == "members":
        return {**operation, "value": _clean_members(value)}
    return managers.clean_operation(operation)


def _clean_values(values: dict[str, Any]) -> dict[str, Any]:
    cleaned: dict[str, Any] = {}
    for key, value in values.items():
        if key.lower() == "active":
            cleaned[key] = _boolean(value)
        elif key.lower() == "members":
            cleaned[key] = _clean_members(value)
        else:
            cleaned[key] = value
    return cleaned


def _clean_members(value: Any) -> Any:
    """Members without the shown names, which are ours to give, and without empty references."""
    if not isinstance(value, list):
        return _clean_members([value])[0] if isinstance(value, dict) else value
    return [
        {
            key: part
            for key, part in one.items()
            if key.lower() != "display" and not (key.lower() == "$ref" and part is None)
        }
        if isinstance(one, dict)
        else one
        for one in value
    ]


def _boolean(value: Any) -> Any:
    if isinstance(value, list) and len(value) == 1 and isinstance(value[0], dict):
        # Entra's legacy form of a single value: [{"value": "False"}].
        value = value[0].get("value")
    if isinstance(value, str) and value.lower() in ("true", "false"):
        return value.lower() == "true"
    return value


def member_changes(document: dict[str, Any]) -> list[tuple[str, frozenset[str]]] | None:
    """A PATCH that only adds and removes members, as (`add` or `remove`, ids) in its order; None
    for any other. By far the most common one: with it, a group of 20,000 need not be built."""
    operations = document.get("Operations")
    if document.get("schemas") != [PATCH_SCHEMA] or not isinstance(operations, list):
        return None
    changes: list[tuple[str, frozenset[str]]] = []
    for operation in operations:
        change = _member_change(operation) if isinstance(operation, dict) else None
        if change is None:
            return None
        changes.append(change)
    return changes or None


def _member_change(operation: dict[str, Any]) -> tuple[str, frozenset[str]] | None:
    kind, path = str(operation.get("op")).lower(), operation.get("path")
    if kind not in ("add", "remove") or not isinstance(path, str):
        return None
    match = ONE_MEMBER.match(path)
    if match and kind == "remove" and operation.get("value") is None:
        return kind, frozenset({match[1]})
    value = operation.get("value")
    if path.strip().lower() != "members" or not isinstance(value, list) or not value:
        return None
    ids = [one.get("value") if isinstance(one, dict) else None for one in value]
    if not all(isinstance(one, str) and one for one in ids):
        return None
    return kind, frozenset(str(one) for one in ids)


def clean_filter(text: str) -> str:
    """A filter; a sample in Entra's documentation lacks the quotes around its value."""
    unquoted = UNQUOTED.match(text)
    if unquoted and unquoted[2].lower() not in LITERALS:
        return f'{unquoted[1]} eq "{unquoted[2]}"'
    return text
