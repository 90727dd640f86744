"""SCIM resources and our rows, each made from the other."""

from typing import Annotated, Any, ClassVar, Final

from pydantic import AfterValidator, Field
from scim2_models import (
    URN,
    CaseExact,
    ComplexAttribute,
    Email,
    EnterpriseUser,
    Meta,
    Mutability,
    Reference,
    Required,
    Resource,
    User,
)
from scim2_models.path import (
    CompareOperator,
    Comparison,
    FilterNode,
    LogicalExpr,
    LogicalOperator,
    ValuePath,
)

from api.errors import Refused
from api.rules.names import clean_email
from api.rules.provisioning import ProvisionedUser
from api.scim.quirks import POLICY
from api.storage.models import DirectoryGroup, Member


class ScimManager(ComplexAttribute):
    """As the standard's, but nothing in it is required and the shown name is kept: neither Entra
    nor Okta sends a reference, and Okta sends a name."""

    value: Annotated[str | None, CaseExact.true] = None
    ref: Annotated[Reference[User[Any]] | None, Mutability.read_write] = Field(
        None, serialization_alias="$ref", validation_alias="$ref"
    )
    display_name: str | None = None


class ScimEnterpriseUser(EnterpriseUser):
    """The enterprise extension with managers as they come."""

    manager: ScimManager | None = None  # type: ignore[assignment]


def _address(text: str) -> str:
    try:
        return clean_email(text)
    except Refused as refused:
        raise ValueError(refused.message) from refused


class ScimEmail(Email):
    """As the standard's, but what an address is say our own rules: the library's check refuses
    names that no public server has, as `corp.local`, which members of the API and of files have."""

    value: Annotated[str, AfterValidator(_address)] | None = None


class ScimUser(User[ScimEnterpriseUser]):
    """A user of the standard with such addresses."""

    emails: list[ScimEmail] | None = None  # type: ignore[assignment]

    Emails: ClassVar[type[ComplexAttribute]] = ScimEmail


class ScimGroupMember(ComplexAttribute):
    """As the standard's, but the shown name is ours to give, so that no copy of it is kept."""

    value: Annotated[str | None, Mutability.immutable, CaseExact.true] = None
    ref: Annotated[Reference[User[Any]] | None, Mutability.immutable] = Field(
        None, serialization_alias="$ref", validation_alias="$ref"
    )
    type: Annotated[str | None, Mutability.immutable] = Field(None, examples=["User"])
    display: Annotated[str | None, Mutability.read_only] = None


class ScimGroup(Resource[Any]):
    """A directory group."""

    __schema__ = URN("urn:ietf:params:scim:schemas:core:2.0:Group")

    display_name: Annotated[str | None, Required.true] = None
    members: list[ScimGroupMember] | None = None

    Members: ClassVar[type[ComplexAttribute]] = ScimGroupMember


USER_SCHEMAS: Final = frozenset(
    {str(User.__schema__).lower(), str(EnterpriseUser.__schema__).lower()}
)
GROUP_SCHEMAS: Final = frozenset({str(ScimGroup.__schema__).lower()})
NOT_KEPT: Final = ("id", "meta", "groups", "password")


def user_of(member: Member, base: str) -> Any:
    """The SCIM user of a member; one who did not come by SCIM has the address as user name."""
    document: dict[str, Any] = dict(member.scim or {})
    if not document:
        document = {"schemas": [str(User.__schema__)]}
        if member.name:
            document["displayName"] = member.name
        if member.email:
            document["emails"] = [{"value": member.email, "type": "work", "primary": True}]
    document["userName"] = member.user_name or member.email
    if not member.active or not member.scim:
        document["active"] = member.active
    document["id"] = member.id
    user = ScimUser.model_validate(document, scim_policy=POLICY)
    user.meta = Meta(
        resource_type="User",
        created=member.created_at,
        last_modified=member.updated_at,
        location=f"{base}/Users/{member.id}",
    )
    return user


def provisioned(user: Any) -> ProvisionedUser:
    """What we understand of a SCIM user, and the document to keep."""
    document = user.model_dump()
    if user.active is not None:
        document["active"] = user.active
    for name in NOT_KEPT:
        document.pop(name, None)
    emails = [email for email in user.emails or [] if email.value]
    emails.sort(key=lambda email: (not email.primary, email.type != "work"))
    name = user.name
    full = " ".join(part for part in (name.given_name, name.family_name) if part) if name else ""
    display_name = user.display_name or (name.formatted if name else "") or full
    return ProvisionedUser(
        user_name=user.user_name or "",
        emails=tuple(str(email.value) for email in emails),
        name=display_name or "",
        active=user.active is not False,
        external_id=user.external_id,
        document=document,
    )


def group_of(directory: DirectoryGroup, members: list[tuple[str, str]] | None, base: str) -> Any:
    """The SCIM group; `members` are ids and shown names, None where nobody asked for them."""
    return ScimGroup(
        id=directory.id,
        external_id=directory.external_id,
        display_name=directory.name,
        members=None
        if members is None
        else [
            ScimGroupMember(
                value=member_id,
                display=name or None,
                type="User",
                ref=Reference(f"{base}/Users/{member_id}"),
            )
            for member_id, name in members
        ]
        or None,
        meta=Meta(
            resource_type="Group",
            created=directory.created_at,
            last_modified=directory.updated_at,
            location=f"{base}/Groups/{directory.id}",
        ),
    )


def equalities(node: FilterNode) -> dict[str, str]:
    """The attributes (in lower case) that whatever matches the filter has exactly, and as what:
    those that SQL can look up before the filter itself decides."""
    match node:
        case LogicalExpr(op=LogicalOperator.and_, terms=terms):
            return {name: value for term in terms for name, value in equalities(term).items()}
        case Comparison(op=CompareOperator.eq, value=str() as value, attr_path=path):
            name = path.attr.lower()
            is_whole = path.sub_attr is None or (name, path.sub_attr.lower()) == ("emails", "value")
            return {name: value} if is_whole else {}
        case ValuePath(attr_path=path, val_filter=inner) if path.attr.lower() == "emails":
            values = equalities(inner)
            return {"emails": values["value"]} if "value" in values else {}
    return {}


def is_user_name(node: FilterNode) -> bool:
    """Whether the filter asks for one user name and nothing else."""
    return isinstance(node, Comparison) and "username" in equalities(node)
