"""The routes of `/scim/v2`. Bodies are read whatever JSON content type they name; answers are
`application/scim+json`."""

from typing import Annotated, Any, Final

import msgspec
from fastapi import APIRouter, Depends, Query, Request
from scim2_models import Context, SearchRequest
from starlette.responses import Response

from api.errors import Refused
from api.options import ApiOptions
from api.rules.groups import delete_directory_group
from api.rules.provisioning import deprovision
from api.scim import discovery, service
from api.scim.resources import ScimGroup, ScimUser
from api.scim.service import PAGE_DEFAULT, PAGE_MAX, Question
from api.web.admission import KeyedRoute
from api.web.answers import SCIM_TYPE
from api.web.context import PROVISIONERS, Allow, ApiPart, Caller, path_id
from api.web.teams_groups import tenant


class ScimAnswer(Response):
    """Both identity providers insist on this content type."""

    media_type = SCIM_TYPE


router = APIRouter(
    prefix="/scim/v2", tags=["SCIM 2.0"], default_response_class=ScimAnswer, route_class=KeyedRoute
)

Provisioner = Annotated[Caller, Depends(Allow(PROVISIONERS, "scim", tenant=True))]
UserId = Annotated[str, path_id("user_01ARZ3NDEKTSV4RRFFQ69G5FAV", "The user.")]
GroupId = Annotated[str, path_id("dir_group_01ARZ3NDEKTSV4RRFFQ69G5FAV", "The directory group.")]

ERRORS: Final[dict[int | str, dict[str, Any]]] = {
    status: {
        "description": text,
        "content": {
            SCIM_TYPE: {
                "example": {
                    "schemas": ["urn:ietf:params:scim:api:messages:2.0:Error"],
                    "status": str(status),
                    "detail": text,
                }
            }
        },
    }
    for status, text in {
        400: "The request cannot be understood.",
        401: "The token is missing, wrong or revoked.",
        403: "The key is no SCIM token.",
        404: "There is no such resource.",
        409: "The name is taken.",
        413: "The body is too large.",
        429: "Too many requests; see Retry-After.",
        503: "Try again; see Retry-After.",
    }.items()
}

MESSAGE: Final = {"$ref": "#/components/schemas/ScimMessage"}
OBJECT: Final[dict[str, Any]] = {"content": {SCIM_TYPE: {"schema": MESSAGE}}}
FOUND: Final = ERRORS | {200: {"description": "As asked.", **OBJECT}}
CREATED: Final = ERRORS | {201: {"description": "Created.", **OBJECT}}


async def read_body(request: Request) -> dict[str, Any]:
    """The JSON object in the body. Raises Refused (400, `invalidSyntax`)."""
    try:
        document = msgspec.json.decode(await request.body())
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        document = None
    if not isinstance(document, dict):
        raise Refused(
            400,
            "invalid",
            "The body is not a JSON object.",
            "body",
            details={"scimType": "invalidSyntax"},
        )
    return document


def read_question(
    filter_: Annotated[str, Query(alias="filter", max_length=4_000)] = "",
    start_index: Annotated[int, Query(alias="startIndex", ge=-(2**31), lt=2**31)] = 1,
    count: Annotated[int, Query(ge=-(2**31), lt=2**31)] = PAGE_DEFAULT,
    attributes: Annotated[str, Query(max_length=4_000)] = "",
    excluded: Annotated[str, Query(alias="excludedAttributes", max_length=4_000)] = "",
) -> Question:
    # The standard reads a start below 1 as 1, and a negative count as 0.
    return Question(
        filter_, max(1, start_index), min(max(0, count), PAGE_MAX), attributes, excluded
    )


Body = Annotated[dict[str, Any], Depends(read_body)]
UrlQuestion = Annotated[Question, Depends(read_question)]


def base_of(request: Request) -> str:
    options: ApiOptions = request.app.state.api.options
    return f"{options.base_url}/scim/v2"


def answer(body: Any, status: int = 200, location: str | None = None) -> Response:
    headers = {"Location": location} if location else None
    return ScimAnswer(msgspec.json.encode(body), status, headers)


def _resource(
    resource: Any, question: Question, model: Any, context: Context, status: int = 200
) -> Response:
    body = resource.model_dump(scim_ctx=context, response_parameters=question.parameters(model))
    return answer(body, status, resource.meta.location)


def body_schema(required: bool = True) -> dict[str, Any]:
    """The OpenAPI description of a body that `read_body` reads."""
    content = {kind: {"schema": MESSAGE} for kind in (SCIM_TYPE, "application/json")}
    return {"requestBody": {"required": required, "content": content}}


def read_search(body: Body) -> Question:
    """The same question as a GET's, in a body. Raises Refused (400)."""
    search = service.parse(
        lambda: SearchRequest.model_validate(body, scim_ctx=Context.SEARCH_REQUEST)
    )
    return read_question(
        search.filter or "",
        1 if search.start_index is None else search.start_index,
        PAGE_DEFAULT if search.count is None else search.count,
        ",".join(str(path) for path in search.attributes or ()),
        ",".join(str(path) for path in search.excluded_attributes or ()),
    )


BodyQuestion = Annotated[Question, Depends(read_search)]


@router.post(
    "/.search",
    responses=FOUND,
    summary="Users and groups, by filter and page",
    openapi_extra=body_schema(),
)
def search_all(
    api: ApiPart, caller: Provisioner, question: BodyQuestion, request: Request
) -> Response:
    with api.store.read() as session:
        return answer(service.search_all(session, tenant(caller), question, base_of(request)))


@router.post(
    "/Users/.search",
    responses=FOUND,
    summary="Users, by filter and page",
    openapi_extra=body_schema(),
)
def search_users(
    api: ApiPart, caller: Provisioner, question: BodyQuestion, request: Request
) -> Response:
    with api.store.read() as session:
        return answer(service.list_users(session, tenant(caller), question, base_of(request)))


@router.post(
    "/Groups/.search",
    responses=FOUND,
    summary="Directory groups, by filter and page",
    openapi_extra=body_schema(),
)
def search_groups(
    api: ApiPart, caller: Provisioner, question: BodyQuestion, request: Request
) -> Response:
    with api.store.read() as session:
        return answer(service.list_groups(session, tenant(caller), question, base_of(request)))


@router.get("/Users", responses=FOUND, summary="Users, by filter and page")
def list_users(
    api: ApiPart, caller: Provisioner, question: UrlQuestion, request: Request
) -> Response:
    with api.store.read() as session:
        return answer(service.list_users(session, tenant(caller), question, base_of(request)))


@router.get("/Users/{user_id}", responses=FOUND, summary="One user")
def get_user(
    api: ApiPart, caller: Provisioner, user_id: UserId, question: UrlQuestion, request: Request
) -> Response:
    with api.store.read() as session:
        user = service.get_user(session, tenant(caller), user_id, base_of(request))
    return _resource(user, question, ScimUser, Context.RESOURCE_QUERY_RESPONSE)


@router.post(
    "/Users",
    status_code=201,
    responses=CREATED,
    summary="Provision a user",
    openapi_extra=body_schema(),
)
def post_user(
    api: ApiPart, caller: Provisioner, body: Body, question: UrlQuestion, request: Request
) -> Response:
    with api.control.change(tenant(caller), caller.actor("scim")) as change:
        user = service.post_user(change, body, base_of(request))
    return _resource(user, question, ScimUser, Context.RESOURCE_CREATION_RESPONSE, 201)


@router.put(
    "/Users/{user_id}", responses=FOUND, summary="Replace a user", openapi_extra=body_schema()
)
def put_user(
    api: ApiPart,
    caller: Provisioner,
    user_id: UserId,
    body: Body,
    question: UrlQuestion,
    request: Request,
) -> Response:
    with api.control.change(tenant(caller), caller.actor("scim")) as change:
        user = service.put_user(change, user_id, body, base_of(request))
    return _resource(user, question, ScimUser, Context.RESOURCE_REPLACEMENT_RESPONSE)


@router.patch(
    "/Users/{user_id}", responses=FOUND, summary="Change a user", openapi_extra=body_schema()
)
def patch_user(
    api: ApiPart,
    caller: Provisioner,
    user_id: UserId,
    body: Body,
    question: UrlQuestion,
    request: Request,
) -> Response:
    with api.control.change(tenant(caller), caller.actor("scim")) as change:
        user = service.patch_user(change, user_id, body, base_of(request))
    return _resource(user, question, ScimUser, Context.RESOURCE_PATCH_RESPONSE)


@router.delete(
    "/Users/{user_id}",
    status_code=204,
    response_class=Response,
    responses=ERRORS,
    summary="Remove a user; usage so far stays",
)
def delete_user(api: ApiPart, caller: Provisioner, user_id: UserId) -> Response:
    with api.control.change(tenant(caller), caller.actor("scim")) as change:
        deprovision(change, user_id)
    return Response(status_code=204)


@router.get("/Groups", responses=FOUND, summary="Directory groups, by filter and page")
def list_groups(
    api: ApiPart, caller: Provisioner, question: UrlQuestion, request: Request
) -> Response:
    with api.store.read() as session:
        return answer(service.list_groups(session, tenant(caller), question, base_of(request)))


@router.get("/Groups/{group_id}", responses=FOUND, summary="One directory group")
def get_group(
    api: ApiPart, caller: Provisioner, group_id: GroupId, question: UrlQuestion, request: Request
) -> Response:
    with api.store.read() as session:
        group = service.get_group(session, tenant(caller), group_id, question, base_of(request))
    return _resource(group, question, ScimGroup, Context.RESOURCE_QUERY_RESPONSE)


@router.post(
    "/Groups",
    status_code=201,
    responses=CREATED,
    summary="Push a directory group",
    openapi_extra=body_schema(),
)
def post_group(
    api: ApiPart, caller: Provisioner, body: Body, question: UrlQuestion, request: Request
) -> Response:
    with api.control.change(tenant(caller), caller.actor("scim")) as change:
        group = service.post_group(change, body, base_of(request))
    return _resource(group, question, ScimGroup, Context.RESOURCE_CREATION_RESPONSE, 201)


@router.put(
    "/Groups/{group_id}",
    responses=FOUND,
    summary="Replace a directory group",
    openapi_extra=body_schema(),
)
def put_group(
    api: ApiPart,
    caller: Provisioner,
    group_id: GroupId,
    body: Body,
    question: UrlQuestion,
    request: Request,
) -> Response:
    with api.control.change(tenant(caller), caller.actor("scim")) as change:
        group = service.put_group(change, group_id, body, base_of(request))
    return _resource(group, question, ScimGroup, Context.RESOURCE_REPLACEMENT_RESPONSE)


@router.patch(
    "/Groups/{group_id}",
    responses=FOUND | {204: {"description": "Done."}},
    summary="Change a directory group; the answer is empty unless attributes are asked for",
    openapi_extra=body_schema(),
)
def patch_group(
    api: ApiPart,
    caller: Provisioner,
    group_id: GroupId,
    body: Body,
    question: UrlQuestion,
    request: Request,
) -> Response:
    with api.control.change(tenant(caller), caller.actor("scim")) as change:
        service.patch_group(change, group_id, body, base_of(request))
    if not question.attributes and not question.excluded_attributes:
        return Response(status_code=204)
    with api.store.read() as session:
        group = service.get_group(session, tenant(caller), group_id, question, base_of(request))
    return _resource(group, question, ScimGroup, Context.RESOURCE_PATCH_RESPONSE)


@router.delete(
    "/Groups/{group_id}",
    status_code=204,
    response_class=Response,
    responses=ERRORS,
    summary="Delete a directory group; its billing group keeps its members",
)
def delete_group(api: ApiPart, caller: Provisioner, group_id: GroupId) -> Response:
    with api.control.change(tenant(caller), caller.actor("scim")) as change:
        delete_directory_group(change, group_id)
    return Response(status_code=204)


@router.get("/ServiceProviderConfig", responses=FOUND, summary="What this service can do")
def get_config(caller: Provisioner, request: Request) -> Response:
    return answer(discovery.config(base_of(request)))


@router.get("/ResourceTypes", responses=FOUND, summary="Users and groups")
def list_resource_types(caller: Provisioner, request: Request) -> Response:
    return answer(discovery.resource_types(base_of(request)))


@router.get("/ResourceTypes/{name}", responses=FOUND, summary="One resource type")
def get_resource_type(
    caller: Provisioner, request: Request, name: Annotated[str, path_id("User", "Its name.")]
) -> Response:
    return answer(discovery.resource_type(base_of(request), name))


@router.get("/Schemas", responses=FOUND, summary="Every schema")
def list_schemas(caller: Provisioner, request: Request) -> Response:
    return answer(discovery.schemas(base_of(request)))


@router.get("/Schemas/{name}", responses=FOUND, summary="One schema")
def get_schema(
    caller: Provisioner,
    request: Request,
    name: Annotated[str, path_id("urn:ietf:params:scim:schemas:core:2.0:User", "Its URN.")],
) -> Response:
    return answer(discovery.schema(base_of(request), name))
