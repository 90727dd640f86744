"""What the SCIM routes do: find, create, change, delete users and directory groups."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

from pydantic import ValidationError
from scim2_models import (
    Context,
    ListResponse,
    PatchOp,
    ResponseParameters,
    SCIMException,
    ScimFilter,
)
from sqlalchemy import Select, func, select
from sqlalchemy.orm import Session, aliased

from api.errors import Refused, not_found
from api.rules.change import Change
from api.rules.directory import (
    create_directory_group,
    directory_members,
    rename_directory_group,
    set_directory_members,
    set_external_id,
)
from api.rules.groups import follow_name
from api.rules.memberships import chunks
from api.rules.names import fold
from api.rules.provisioning import provision, provisioned_member, update_provisioned
from api.scim import quirks
from api.scim.complaints import refused_by_rule, refused_by_schema
from api.scim.quirks import POLICY
from api.scim.resources import (
    GROUP_SCHEMAS,
    USER_SCHEMAS,
    ScimGroup,
    ScimUser,
    equalities,
    group_of,
    is_user_name,
    provisioned,
    user_of,
)
from api.storage.models import (
    BillingGroup,
    DirectoryGroup,
    DirectoryMembership,
    Member,
    MemberAlias,
)

PAGE_DEFAULT: Final = 100
PAGE_MAX: Final = 1_000
GROUP_MEMBERS_MAX: Final = 100_000


@dataclass(frozen=True, slots=True)
class Question:
    """The query parameters of a list or a single read."""

    filter: str = ""
    start_index: int = 1
    count: int = PAGE_DEFAULT
    attributes: str = ""
    excluded_attributes: str = ""

    def wants_members(self) -> bool:
        """Whether a group's members are to be read at all; lists of 20,000 are dear."""
        excluded = {one.strip().lower() for one in self.excluded_attributes.split(",")}
        chosen = {one.strip().lower().partition(".")[0] for one in self.attributes.split(",")}
        return "members" not in excluded and (not self.attributes or "members" in chosen)

    def parameters(self, model: Any) -> Any:
        return parse(
            lambda: ResponseParameters[model].model_validate(
                {
                    "attributes": self.attributes or None,
                    "excludedAttributes": self.excluded_attributes or None,
                }
            )
        )


def parse(read: Callable[[], Any]) -> Any:
    """Runs a reading of scim2-models; its complaints become our errors, with their `scimType`."""
    try:
        with POLICY:
            return read()
    except ValidationError as error:
        refused = refused_by_schema(error)
    except SCIMException as error:
        refused = refused_by_rule(error)
    raise refused


# ---- users


def list_users(session: Session, organization_id: str, question: Question, base: str) -> Any:
    """A page of users, deactivated ones too."""
    query = select(Member).where(
        Member.organization_id == organization_id,
        Member.removed_at.is_(None),
        Member.erased_at.is_(None),
        Member.kind == "person",
    )
    if question.filter:
        matcher = parse(lambda: ScimFilter[ScimUser](quirks.clean_filter(question.filter)))
        narrowed = narrowed_users(query, organization_id, matcher)
        members = session.scalars(narrowed.order_by(Member.created_at, Member.id))
        users = [user_of(row, base) for row in members]
        if not is_user_name(matcher.ast):
            users = [user for user in users if matcher.match(user)]
        start = question.start_index - 1
        return _page(users[start : start + question.count], len(users), question, ScimUser)
    total = session.scalar(select(func.count()).select_from(query.subquery())) or 0
    rows = session.scalars(
        query.order_by(Member.created_at, Member.id)
        .offset(question.start_index - 1)
        .limit(question.count)
    ).all()
    return _page([user_of(row, base) for row in rows], total, question, ScimUser)


def narrowed_users(query: Select[Any], organization_id: str, matcher: Any) -> Select[Any]:
    """The common look-ups by SQL and its indexes; the filter itself still decides afterwards,
    except about user names, which we compare as everywhere else."""
    exact = equalities(matcher.ast)
    if "username" in exact:
        query = query.where(Member.id.in_(_ids_by_user_name(organization_id, exact["username"])))
    if "externalid" in exact:
        query = query.where(Member.external_id == exact["externalid"])
    if "id" in exact:
        query = query.where(Member.id == exact["id"])
    if "emails" in exact:
        owners = select(MemberAlias.member_id).where(
            MemberAlias.organization_id == organization_id,
            MemberAlias.alias_folded == fold(exact["emails"]),
        )
        query = query.where(Member.id.in_(owners))
    return query


def _ids_by_user_name(organization_id: str, user_name: str) -> Any:
    """A member who did not come by SCIM has the address as user name. Two look-ups rather than one
    condition with OR, which the databases answer by reading every member."""
    holder = aliased(Member)
    by_name = select(holder.id).where(
        holder.organization_id == organization_id, holder.user_name_folded == fold(user_name)
    )
    by_address = select(holder.id).where(
        holder.organization_id == organization_id,
        holder.email_folded == fold(user_name),
        holder.user_name_folded.is_(None),
    )
    return by_name.union_all(by_address)


def _page(resources: Sequence[Any], total: int, question: Question, model: Any) -> Any:
    answer = ListResponse[model](
        total_results=total,
        start_index=question.start_index,
        items_per_page=len(resources),
        resources=list(resources),
    )
    return answer.model_dump(
        scim_ctx=Context.RESOURCE_QUERY_RESPONSE, response_parameters=question.parameters(model)
    )


def get_user(session: Session, organization_id: str, member_id: str, base: str) -> Any:
    """Raises Refused (404) where there is none, or it was removed."""
    member = session.get(Member, (organization_id, member_id))
    if member is None or member.removed_at is not None or member.erased_at is not None:
        raise not_found("user", member_id, "id")
    return user_of(member, base)


def post_user(change: Change, document: dict[str, Any], base: str) -> Any:
    user = parse(
        lambda: ScimUser.model_validate(
            quirks.clean_resource(document, USER_SCHEMAS),
            scim_ctx=Context.RESOURCE_CREATION_REQUEST,
        )
    )
    user.active = user.active is not False
    return user_of(provision(change, provisioned(user)), base)


def put_user(change: Change, member_id: str, document: dict[str, Any], base: str) -> Any:
    member = provisioned_member(change, member_id)
    before = user_of(member, base)

    def read() -> Any:
        user = ScimUser.model_validate(
            quirks.clean_resource(document, USER_SCHEMAS),
            scim_ctx=Context.RESOURCE_REPLACEMENT_REQUEST,
        )
        user.replace(before)
        return user

    return user_of(update_provisioned(change, member, provisioned(parse(read))), base)


def patch_user(change: Change, member_id: str, document: dict[str, Any], base: str) -> Any:
    member = provisioned_member(change, member_id)
    user = user_of(member, base)
    _patch(user, ScimUser, document)
    return user_of(update_provisioned(change, member, provisioned(user)), base)


def _patch(resource: Any, model: Any, document: dict[str, Any]) -> None:
    cleaned = quirks.clean_operations(document)
    if cleaned.get("Operations") == [] and document.get("Operations"):
        return

    def read() -> None:
        patch = PatchOp[model].model_validate(cleaned, scim_ctx=Context.RESOURCE_PATCH_REQUEST)
        patch.patch(resource)

    parse(read)


def search_all(session: Session, organization_id: str, question: Question, base: str) -> Any:
    """Users, then groups, as one list; each of the two is asked for as far as it is needed."""
    both = replace(question, start_index=1, count=question.start_index - 1 + question.count)
    users = list_users(session, organization_id, both, base)
    groups = list_groups(session, organization_id, both, base)
    both_kinds = [*users.get("Resources", []), *groups.get("Resources", [])]
    page = both_kinds[question.start_index - 1 :][: question.count]
    return users | {
        "totalResults": users["totalResults"] + groups["totalResults"],
        "startIndex": question.start_index,
        "itemsPerPage": len(page),
        "Resources": page,
    }


# ---- groups


def list_groups(session: Session, organization_id: str, question: Question, base: str) -> Any:
    query = select(DirectoryGroup).where(DirectoryGroup.organization_id == organization_id)
    with_members = question.wants_members() or "members" in question.filter.lower()
    if not question.filter:
        total = session.scalar(select(func.count()).select_from(query.subquery())) or 0
        rows = session.scalars(
            query.order_by(DirectoryGroup.created_at, DirectoryGroup.id)
            .offset(question.start_index - 1)
            .limit(question.count)
        ).all()
        listed = [_group(session, row, base, with_members=with_members) for row in rows]
        return _page(listed, total, question, ScimGroup)
    matcher = parse(lambda: ScimFilter[ScimGroup](quirks.clean_filter(question.filter)))
    exact = equalities(matcher.ast)
    if "displayname" in exact:
        query = query.where(DirectoryGroup.name_folded == fold(exact["displayname"]))
    if "externalid" in exact:
        query = query.where(DirectoryGroup.external_id == exact["externalid"])
    rows = session.scalars(query.order_by(DirectoryGroup.created_at, DirectoryGroup.id)).all()
    groups = (_group(session, row, base, with_members=with_members) for row in rows)
    matching = [group for group in groups if matcher.match(group)]
    start = question.start_index - 1
    return _page(matching[start : start + question.count], len(matching), question, ScimGroup)


def get_group(
    session: Session, organization_id: str, group_id: str, question: Question, base: str
) -> Any:
    row = _directory(session, organization_id, group_id)
    return _group(session, row, base, with_members=question.wants_members())


def _directory(session: Session, organization_id: str, group_id: str) -> DirectoryGroup:
    row = session.get(DirectoryGroup, (organization_id, group_id))
    if row is None:
        raise not_found("group", group_id, "id")
    return row


def _group(session: Session, row: DirectoryGroup, base: str, *, with_members: bool) -> Any:
    if not with_members:
        return group_of(row, None, base)
    members = session.execute(
        select(Member.id, Member.name)
        .join(
            DirectoryMembership,
            (DirectoryMembership.organization_id == Member.organization_id)
            & (DirectoryMembership.member_id == Member.id),
        )
        .where(
            DirectoryMembership.organization_id == row.organization_id,
            DirectoryMembership.directory_group_id == row.id,
        )
        .order_by(Member.id)
    )
    return group_of(row, [(member[0], member[1]) for member in members], base)


def post_group(change: Change, document: dict[str, Any], base: str) -> Any:
    group = parse(
        lambda: ScimGroup.model_validate(
            quirks.clean_resource(document, GROUP_SCHEMAS),
            scim_ctx=Context.RESOURCE_CREATION_REQUEST,
        )
    )
    row = create_directory_group(change, group.display_name, group.external_id)
    set_directory_members(change, row, _member_ids(change, group))
    return _group(change.session, row, base, with_members=True)


def put_group(change: Change, group_id: str, document: dict[str, Any], base: str) -> Any:
    row = _directory(change.session, change.organization_id, group_id)
    group = parse(
        lambda: ScimGroup.model_validate(
            quirks.clean_resource(document, GROUP_SCHEMAS),
            scim_ctx=Context.RESOURCE_REPLACEMENT_REQUEST,
        )
    )
    _update_group(change, row, group)
    return _group(change.session, row, base, with_members=True)


def patch_group(change: Change, group_id: str, document: dict[str, Any], base: str) -> None:
    row = _directory(change.session, change.organization_id, group_id)
    changes = quirks.member_changes(document)
    present = directory_members(change, group_id)
    if changes is not None:
        target = set(present)
        for kind, ids in changes:
            target = target | ids if kind == "add" else target - ids
        _require_users(change, target - set(present))
        set_directory_members(change, row, target)
        return
    # Shown names and references belong to us; a patch that removes by value must not compare them.
    group = group_of(row, [(member_id, "") for member_id in present], base)
    for member in group.members or []:
        member.ref = member.type = None
    _patch(group, ScimGroup, document)
    _update_group(change, row, group)


def _update_group(change: Change, row: DirectoryGroup, group: Any) -> None:
    set_external_id(change, row, group.external_id)
    if rename_directory_group(change, row, group.display_name):
        billing = change.session.scalar(
            select(BillingGroup).where(
                BillingGroup.organization_id == change.organization_id,
                BillingGroup.directory_group_id == row.id,
            )
        )
        if billing is not None:
            follow_name(change, billing, row.name)
    set_directory_members(change, row, _member_ids(change, group))


def _member_ids(change: Change, group: Any) -> set[str]:
    """The users in a SCIM group. Raises Refused (400) where one is not a user here."""
    member_ids = {str(member.value) for member in group.members or [] if member.value}
    _require_users(change, member_ids)
    return member_ids


def _require_users(change: Change, member_ids: set[str]) -> None:
    if len(member_ids) > GROUP_MEMBERS_MAX:
        raise Refused(413, "too_large", f"At most {GROUP_MEMBERS_MAX} members a group.", "members")
    known: set[str] = set()
    for portion in chunks(sorted(member_ids)):
        known.update(
            change.session.scalars(
                select(Member.id).where(
                    Member.organization_id == change.organization_id,
                    Member.id.in_(portion),
                    Member.removed_at.is_(None),
                )
            )
        )
    for missing in sorted(member_ids - known):
        raise Refused(
            400,
            "invalid",
            f"There is no user {missing!r} to be a member.",
            "members",
            "Provision the user first; groups in groups are not supported.",
            details={"scimType": "invalidValue"},
        )
