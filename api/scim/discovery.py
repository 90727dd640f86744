"""What this SCIM service says of itself: truthfully, so that clients ask for nothing else."""

from typing import Any, Final

from scim2_models import (
    AuthenticationScheme,
    Bulk,
    ChangePassword,
    Context,
    ETag,
    Filter,
    ListResponse,
    Meta,
    Patch,
    ResourceType,
    Schema,
    ServiceProviderConfig,
    Sort,
    User,
)

from api.errors import not_found
from api.scim.resources import ScimEnterpriseUser, ScimGroup
from api.scim.service import PAGE_MAX

RESPONSE: Final = Context.RESOURCE_QUERY_RESPONSE


def config(base: str) -> Any:
    return ServiceProviderConfig(
        patch=Patch(supported=True),
        bulk=Bulk(supported=False, max_operations=0, max_payload_size=0),
        filter=Filter(supported=True, max_results=PAGE_MAX),
        change_password=ChangePassword(supported=False),
        sort=Sort(supported=False),
        etag=ETag(supported=False),
        authentication_schemes=[
            AuthenticationScheme(
                type=AuthenticationScheme.Type.oauthbearertoken,
                name="Bearer token",
                description="A SCIM token of the organization, made by its admin.",
                primary=True,
            )
        ],
        meta=Meta(resource_type="ServiceProviderConfig", location=f"{base}/ServiceProviderConfig"),
    ).model_dump(scim_ctx=RESPONSE)


def _resource_types(base: str) -> list[ResourceType]:
    def described(name: str, schema: str, extensions: list[dict[str, Any]]) -> ResourceType:
        document = {
            "id": name,
            "name": name,
            "description": "Members" if name == "User" else "Directory groups",
            "endpoint": f"/{name}s",
            "schema": schema,
            "schemaExtensions": extensions or None,
            "meta": {"resourceType": "ResourceType", "location": f"{base}/ResourceTypes/{name}"},
        }
        return ResourceType.model_validate(document)

    enterprise = {"schema": str(ScimEnterpriseUser.__schema__), "required": False}
    return [
        described("User", str(User.__schema__), [enterprise]),
        described("Group", str(ScimGroup.__schema__), []),
    ]


def _schemas(base: str) -> list[Schema]:
    every = [User.to_schema(), ScimGroup.to_schema(), ScimEnterpriseUser.to_schema()]
    for schema in every:
        schema.meta = Meta(resource_type="Schema", location=f"{base}/Schemas/{schema.id}")
    return every


def _listed(resources: list[Any], model: Any) -> Any:
    return ListResponse[model](
        total_results=len(resources),
        start_index=1,
        items_per_page=len(resources),
        resources=resources,
    ).model_dump(scim_ctx=RESPONSE)


def resource_types(base: str) -> Any:
    return _listed(_resource_types(base), ResourceType)


def resource_type(base: str, name: str) -> Any:
    for one in _resource_types(base):
        if one.id == name:
            return one.model_dump(scim_ctx=RESPONSE)
    raise not_found("resource type", name, "id")


def schemas(base: str) -> Any:
    return _listed(_schemas(base), Schema)


def schema(base: str, name: str) -> Any:
    for one in _schemas(base):
        if str(one.id) == name:
            return one.model_dump(scim_ctx=RESPONSE)
    raise not_found("schema", name, "id")
