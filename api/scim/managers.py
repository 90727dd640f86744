"""A user's `manager` in every form that Entra and Okta send, turned into the standard's: an object
under the enterprise extension, with `value`, and `$ref` and `displayName` where they were sent.

Pure. Paths and keys name it as `urn:…:User:manager`, and also with a dot for the last colon; values
are a text, an object, or a list of one. What says nothing (`null`, `""`, `[]`) means: no manager.
"""

import re
from typing import Any, Final

ENTERPRISE: Final = "urn:ietf:params:scim:schemas:extension:enterprise:2.0:User"
MANAGER: Final = f"{ENTERPRISE}:manager"
PATH: Final = re.compile(
    rf"\s*{re.escape(ENTERPRISE)}[:.]manager(?P<part>\.(?:value|\$ref|displayName))?\s*\Z",
    re.IGNORECASE,
)


def clean_values(values: dict[str, Any]) -> dict[str, Any]:
    """Attributes by name, of a resource or of a PATCH without a path: the manager as the standard
    has it, within the extension, whatever it was called."""
    cleaned: dict[str, Any] = {}
    extension: dict[str, Any] = {}
    for name, value in values.items():
        match = PATH.match(name)
        if match is None and name.strip().lower() == ENTERPRISE.lower() and isinstance(value, dict):
            extension |= clean_extension(value)
        elif match is None:
            cleaned[name] = value
        elif match["part"]:
            cleaned[f"{MANAGER}{match['part']}"] = value
        else:
            extension["manager"] = manager_object(value)
    return cleaned | {ENTERPRISE: extension} if extension else cleaned


def clean_extension(values: dict[str, Any]) -> dict[str, Any]:
    """The attributes of the enterprise extension."""
    return {
        name: manager_object(value) if name.lower() == "manager" else value
        for name, value in values.items()
    }


def clean_operation(operation: dict[str, Any]) -> dict[str, Any]:
    """An operation of a PATCH that names the manager, or the whole extension, in its path."""
    path, value = operation.get("path"), operation.get("value")
    if not isinstance(path, str):
        return operation
    if path.strip().lower() == ENTERPRISE.lower() and isinstance(value, dict):
        return {**operation, "value": clean_extension(value)}
    match = PATH.match(path)
    if match is None:
        return operation
    is_whole = match["part"] in (None, ".value")
    if _is_removal(operation) or (is_whole and manager_object(value) is None):
        return {"op": "remove", "path": MANAGER if is_whole else f"{MANAGER}{match['part']}"}
    if match["part"]:
        return {**operation, "path": f"{MANAGER}{match['part']}"}
    return {**operation, "path": MANAGER, "value": manager_object(value)}


def whole(operation: dict[str, Any]) -> list[dict[str, Any]]:
    """A cleaned operation; where it names a manager, after taking the former one away, so that
    nothing of the former one is left beside the id of the new one."""
    path, value = operation.get("path"), operation.get("value")
    manager = value if path == MANAGER else None
    if path is None and isinstance(value, dict):
        extension = value.get(ENTERPRISE)
        manager = extension.get("manager") if isinstance(extension, dict) else None
    if _is_removal(operation) or manager is None:
        return [operation]
    return [{"op": "remove", "path": MANAGER}, operation]


def _is_removal(operation: dict[str, Any]) -> bool:
    return str(operation.get("op")).lower() == "remove"


def manager_object(value: Any) -> Any:
    """The manager as an object; None where none is named. What is no form of one stays as it is,
    to be refused by the schema."""
    if isinstance(value, list) and len(value) <= 1:
        return manager_object(value[0]) if value else None
    if isinstance(value, int) and not isinstance(value, bool):
        return {"value": str(value)}
    if isinstance(value, str):
        return {"value": value} if value.strip() else None
    if not isinstance(value, dict):
        return value
    parts = {
        name: str(part) if isinstance(part, int) and not isinstance(part, bool) else part
        for name, part in value.items()
        if part not in (None, "")
    }
    return parts or None
