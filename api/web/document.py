"""The OpenAPI document, as generators of clients and linters want it."""

from typing import Any, Final

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi

from api.web.gate import API_KEY_HEADER, API_KEY_PATHS, is_open
from schemas.partners import WEBHOOK_TYPES

TAGS: Final = {
    "Billing groups (Cursor's shapes)": "Groups with their members and spend, as Cursor has them.",
    "Usage and spend (Cursor's shapes)": "Members, spend, usage and audit log, as Cursor has them.",
    "Organizations, prices and credits": "What an operator sets up, and what it grants.",
    "Billing": "Packages, and what groups and websites buy of them.",
    "Credits (AthenaHQ's shapes)": "What can be spent, as AthenaHQ's credits API says it.",
    "CSV": "Groups and members as a file, out and in.",
    "Groups": "Billing groups, with their history.",
    "Members and websites": "Who uses, for what, and where it is charged.",
    "Keys and audit": "API keys, SCIM tokens, and who changed what.",
    "SCIM 2.0": "What identity providers provision.",
    "Ingestion": "Usage by HTTP.",
    "Webhooks": "What those who take the money tell; signed by them.",
    "Operation": "Health and metrics, without a key.",
}
SECURITY_SCHEMES: Final = {
    "basic": {
        "type": "http",
        "scheme": "basic",
        "description": "The API key as user name, with an empty password.",
    },
    "bearer": {
        "type": "http",
        "scheme": "bearer",
        "description": "The API key; for SCIM the organization's SCIM token.",
    },
    "api_key": {
        "type": "apiKey",
        "in": "header",
        "name": API_KEY_HEADER,
        "description": "The API key, as AthenaHQ's clients send it.",
    },
}
SCHEMAS: Final[dict[str, dict[str, Any]]] = {
    "CloudEvent": {
        "title": "CloudEvent",
        "description": "CloudEvents 1.0 in JSON; other attributes are passed over.",
        "type": "object",
        "required": ["specversion", "id", "source", "type", "subject"],
        "properties": {
            "specversion": {"type": "string", "const": "1.0"},
            "id": {"type": "string", "description": "With `source`, what an event is known by."},
            "source": {"type": "string"},
            "type": {"type": "string", "description": "The meter."},
            "subject": {"type": "string", "description": "A member's id, or one of its addresses."},
            "time": {"type": "string", "format": "date-time"},
            "organizationid": {"type": "string", "description": "By default the key's."},
            "data": {"$ref": "#/components/schemas/EventData"},
            "data_base64": {"type": "string", "description": "`data` as JSON in base64, instead."},
        },
    },
    "EventData": {
        "title": "EventData",
        "type": "object",
        "required": ["quantity"],
        "properties": {
            "quantity": {
                "description": "A whole number, or a decimal text with at most 6 decimals.",
                "anyOf": [{"type": "integer"}, {"type": "string"}],
            },
            "website_id": {"type": "string"},
            "dimensions": {"type": "object", "additionalProperties": {"type": "string"}},
        },
    },
    "PartnerWebhook": {
        "title": "PartnerWebhook",
        "description": "`schemas/json_schema/partners/webhook.schema.json`",
        "type": "object",
        "required": ["type", "timestamp", "data"],
        "properties": {
            "type": {"type": "string", "enum": sorted(WEBHOOK_TYPES)},
            "timestamp": {"type": "string", "format": "date-time"},
            "data": {
                "type": "object",
                "required": ["purchase_id", "organization_id"],
                "properties": {
                    "purchase_id": {"type": "string", "examples": ["buy_01ARZ3NDEKTSV4RRFFQ69G"]},
                    "organization_id": {"type": "string", "examples": ["org_acme"]},
                    "charge_id": {"type": "string", "examples": ["ch_91"]},
                    "subscription_id": {"type": "string", "examples": ["sub_4"]},
                    "refunded_minor": {"type": "integer", "examples": [300]},
                },
            },
        },
    },
    "StripeEvent": {
        "title": "StripeEvent",
        "description": "An event of Stripe's API v1, as it sends it.",
        "type": "object",
        "required": ["id", "object", "type", "created", "livemode", "data"],
        "properties": {
            "id": {"type": "string", "examples": ["evt_1SabcdEFGH"]},
            "object": {"type": "string", "const": "event"},
            "type": {"type": "string", "examples": ["checkout.session.completed"]},
            "created": {"type": "integer"},
            "livemode": {"type": "boolean"},
            "data": {"type": "object", "required": ["object"]},
        },
    },
    "ScimMessage": {
        "title": "ScimMessage",
        "description": "A resource, list or request of SCIM 2.0 (RFC 7643, RFC 7644).",
        "type": "object",
        "additionalProperties": True,
    },
}
"""What routes that read their bodies themselves refer to."""


def document(app: FastAPI, public_url: str) -> dict[str, Any]:
    """FastAPI's document, with who may call what and where, and without the 422 that it assumes:
    our invalid requests are 400s. Made once.

    `public_url` is where clients reach the API; empty where that is wherever the document is from.
    """
    if app.openapi_schema is None:
        schema = get_openapi(
            title=app.title,
            version=app.version,
            description=app.description,
            routes=app.routes,
            servers=[{"url": public_url.rstrip("/") or "/"}],
            tags=[{"name": name, "description": text} for name, text in TAGS.items()],
            license_info={"name": "Apache 2.0", "identifier": "Apache-2.0"},
        )
        schema["components"]["securitySchemes"] = SECURITY_SCHEMES
        schema["components"]["schemas"] |= SCHEMAS
        for path, operations in schema["paths"].items():
            for operation in operations.values():
                operation["security"] = _security(path)
                if "HTTPValidationError" in str(operation["responses"].get("422", {})):
                    del operation["responses"]["422"]
                _refer_only(operation["responses"])
        for name in ("HTTPValidationError", "ValidationError"):
            schema["components"]["schemas"].pop(name, None)
        app.openapi_schema = schema
    return app.openapi_schema


def _refer_only(responses: dict[str, Any]) -> None:
    """FastAPI takes an answer of a class of our own for text, also where we name its schema."""
    for response in responses.values():
        for content in response.get("content", {}).values():
            if reference := content.get("schema", {}).get("$ref"):
                content["schema"] = {"$ref": reference}


def _security(path: str) -> list[dict[str, list[str]]]:
    """Any one of them; an empty list says that none is needed."""
    if is_open(path):
        return []
    if path in API_KEY_PATHS:
        return [{"api_key": []}, {"bearer": []}, {"basic": []}]
    return [{"bearer": []}] if path.startswith("/scim/") else [{"bearer": []}, {"basic": []}]
