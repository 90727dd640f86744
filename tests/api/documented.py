"""Every answer that a client gets is held against the OpenAPI document."""

import re
from functools import cache
from typing import Any

import httpx
from jsonschema import Draft202012Validator

from api.app import openapi
from schemas.settings import Settings


@cache
def document() -> dict[str, Any]:
    return openapi(Settings())


@cache
def _patterns() -> list[tuple[re.Pattern[str], dict[str, Any]]]:
    return [
        (re.compile(re.sub(r"\{\w+\}", "[^/]+", path)), operations)
        for path, operations in document()["paths"].items()
    ]


def check(answer: httpx.Response) -> None:
    """An event hook of httpx: the status and the body are as the document says."""
    answer.read()
    request = answer.request
    operations = next(of for path, of in _patterns() if path.fullmatch(request.url.path))
    where = f"{request.method} {request.url.path}: {answer.status_code}"
    responses = operations[request.method.lower()]["responses"]
    assert str(answer.status_code) in responses, where
    content = responses[str(answer.status_code)].get("content")
    if content is None:
        assert answer.content == b"", where
        return
    schema = content["application/json"]["schema"] | {"components": document()["components"]}
    problems = [error.message for error in Draft202012Validator(schema).iter_errors(answer.json())]
    assert problems == [], where
