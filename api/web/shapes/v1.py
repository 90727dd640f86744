"""Requests and answers of `/v1`. Amounts are integers of micro-credits; times RFC 3339."""

from datetime import datetime
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, AwareDatetime, BaseModel, ConfigDict, Field

from schemas.records import ID_LIMIT_CHARACTERS, INT64_MAX

Name = Annotated[str, Field(min_length=1, max_length=255)]
Id = Annotated[
    str, Field(min_length=1, max_length=ID_LIMIT_CHARACTERS, pattern=r"^[^\u0000-\u001f]+$")
]
Micro = Annotated[int, Field(strict=True, ge=1, le=INT64_MAX)]
YEARS = range(2000, 2201)


def _sane(moment: datetime) -> datetime:
    if moment.year not in YEARS:
        raise ValueError(f"the year must be {YEARS.start} to {YEARS.stop - 1}")
    return moment


Moment = Annotated[AwareDatetime, AfterValidator(_sane)]
Scope = Literal["operator", "admin", "group_admin", "finance", "ingest", "scim"]
PoolKind = Literal["website", "group"]
GROUP = "group_01ARZ3NDEKTSV4RRFFQ69G5FAV"
TIME = "2026-11-01T00:00:00.000Z"


class Request(BaseModel):
    """Unknown fields are refused: a misspelt one would otherwise do nothing, in silence."""

    model_config = ConfigDict(extra="forbid")


class NewOrganization(Request):
    id: Id | None = Field(default=None, examples=["org_acme"])
    name: Name = Field(examples=["Acme"])
    funding_group: Literal["member", "website"] = "member"
    credit_price_micro: int = Field(default=10_000, strict=True, ge=0, le=10**15)
    currency: str = Field(default="USD", pattern="^[A-Z]{3}$")
    billing_anchor_day: int = Field(default=1, strict=True, ge=1, le=31)
    time_zone: str = Field(default="UTC", max_length=64)
    effective_at: Moment | None = Field(
        default=None, description="Earlier than now where usage is already there."
    )


class OrganizationChange(Request):
    name: Name | None = None
    funding_group: Literal["member", "website"] | None = None
    credit_price_micro: int | None = Field(default=None, strict=True, ge=0, le=10**15)
    currency: str | None = Field(default=None, pattern="^[A-Z]{3}$")
    billing_anchor_day: int | None = Field(default=None, strict=True, ge=1, le=31)
    time_zone: str | None = Field(default=None, max_length=64)


class Organization(BaseModel):
    id: str = Field(examples=["org_acme"])
    name: str = Field(examples=["Acme"])
    funding_group: str
    credit_price_micro: int = Field(description="Millionths of the currency's unit a credit.")
    currency: str
    billing_anchor_day: int
    time_zone: str
    created_at: datetime = Field(examples=[TIME])


class Organizations(BaseModel):
    items: list[Organization]
    next_cursor: str | None


class NewGroup(Request):
    id: Id | None = Field(default=None, examples=["group_research"])
    name: Name = Field(examples=["Research"])


class GroupChange(Request):
    """Only what is given changes; `directory_group_id: null` detaches."""

    name: Name | None = None
    directory_group_id: Id | None = None


class FormerName(BaseModel):
    name: str
    valid_from: datetime
    valid_to: datetime | None


class SyncConflict(BaseModel):
    """A member whom several synced groups want; it is in the first."""

    member_id: str
    group_ids: list[str]


class Group(BaseModel):
    id: str = Field(examples=[GROUP])
    name: str = Field(examples=["Research"])
    configured_by: str = Field(examples=["csv"], description="scim, api, csv or manual")
    directory_group_id: str | None
    directory_group_name: str | None
    name_conflict: str | None
    member_count: int
    created_at: datetime = Field(examples=[TIME])
    updated_at: datetime = Field(examples=[TIME])


class GroupRow(Group):
    spend_micro: int = Field(examples=[1_830_000])
    spend_cents: float = Field(examples=[1.83])


class GroupTable(BaseModel):
    """`cycle_start <= time < cycle_end`."""

    items: list[GroupRow]
    unassigned: GroupRow
    cycle_start: datetime
    cycle_end: datetime


class OneGroup(Group):
    names: list[FormerName]
    sync_conflicts: list[SyncConflict]


class MemberIds(Request):
    member_ids: list[Id] = Field(min_length=1, max_length=10_000, examples=[["user_42"]])


class Move(Request):
    member_id: Id = Field(examples=["user_42"])
    group_id: Id = Field(examples=[GROUP], description="`group_unassigned` for none.")


class GroupRef(Request):
    group_id: Id = Field(examples=[GROUP], description="`group_unassigned` for none.")


class Moves(Request):
    moves: list[Move] = Field(min_length=1, max_length=10_000)


class Moved(BaseModel):
    moved: int


class NewMember(Request):
    id: Id | None = Field(default=None, examples=["user_42"])
    email: str | None = Field(default=None, max_length=255, examples=["ann@example.com"])
    name: str = Field(default="", max_length=255, examples=["Ann"])
    role: Literal["owner", "admin", "member"] = "member"
    kind: Literal["person", "service_account"] = "person"


class MemberChange(Request):
    email: str | None = Field(default=None, max_length=255)
    name: Name | None = None
    role: Literal["owner", "admin", "member"] | None = None


class Member(BaseModel):
    id: str = Field(examples=["user_42"])
    email: str | None = Field(examples=["ann@example.com"])
    name: str = Field(examples=["Ann"])
    role: str
    kind: str
    active: bool
    removed: bool
    group_id: str = Field(examples=[GROUP])
    created_at: datetime = Field(examples=[TIME])


class Members(BaseModel):
    items: list[Member]
    next_cursor: str | None


class NewAlias(Request):
    alias: Name = Field(examples=["a.nn@example.com"])


class Aliases(BaseModel):
    member_id: str
    aliases: list[str]


class DirectoryGroup(BaseModel):
    id: str
    name: str
    external_id: str | None
    member_count: int
    group_id: str | None = Field(description="The billing group that follows it.")


class DirectoryGroups(BaseModel):
    items: list[DirectoryGroup]
    next_cursor: str | None


class NewWebsite(Request):
    id: Id | None = Field(default=None, examples=["web_3"])
    name: Name = Field(examples=["shop.example.com"])
    group_id: Id = "group_unassigned"


class WebsiteChange(Request):
    name: Name | None = None
    group_id: Id | None = None


class Website(BaseModel):
    id: str = Field(examples=["web_3"])
    name: str
    group_id: str
    created_at: datetime = Field(examples=[TIME])


class Websites(BaseModel):
    items: list[Website]
    next_cursor: str | None


class NewPrice(Request):
    meter: Id = Field(examples=["ai.tokens"])
    micro_per_million_units: int = Field(strict=True, ge=0, le=INT64_MAX, examples=[1_000_000])
    effective_at: Moment | None = None


class Price(BaseModel):
    meter: str
    micro_per_million_units: int
    effective_at: datetime
    book: Literal["organization", "default"]


class Prices(BaseModel):
    items: list[Price]
    next_cursor: str | None


class NewGrant(Request):
    id: Id | None = None
    pool_kind: PoolKind
    pool_id: Id = Field(examples=[GROUP])
    kind: Literal["monthly", "one_time"] = "one_time"
    amount_micro: Micro = Field(examples=[500_000_000])
    source: Name = Field(default="admin:operator", examples=["partner:acme-42"])
    effective_at: Moment | None = None
    expires_at: Moment | None = None
    awaiting_payment: bool = False


class Grant(BaseModel):
    id: str
    pool_kind: str
    pool_id: str
    kind: str
    amount_micro: int
    revoked_micro: int
    source: str
    effective_at: datetime
    expires_at: datetime | None
    awaiting_payment: bool


class Grants(BaseModel):
    items: list[Grant]
    next_cursor: str | None


class Revocation(Request):
    amount_micro: Micro | None = Field(default=None, description="All that is left, if absent.")
    why: Name = Field(examples=["refund"])


class Adjustment(Request):
    pool_kind: PoolKind
    pool_id: Id = Field(examples=[GROUP])
    amount_micro: int = Field(strict=True, ge=-INT64_MAX, le=INT64_MAX, examples=[-1_000_000])
    why: Name = Field(examples=["counted twice"])


class Adjusted(BaseModel):
    version: int = Field(description="Of the fact in the topic `credits`.")


class NewKey(Request):
    scope: Scope
    name: Name = Field(examples=["nightly export"])
    expires_at: Moment | None = Field(default=None, description="A year from now, if absent.")
    group_id: Id | None = Field(
        default=None,
        description="For scope `group_admin`: the one group; every group of the organization, "
        "if absent.",
        examples=[GROUP],
    )


class Key(BaseModel):
    id: str
    scope: str
    name: str
    hint: str = Field(description="The last characters of the secret.")
    organization_id: str | None
    group_id: str | None
    created_at: datetime
    expires_at: datetime
    revoked_at: datetime | None


class NewSecret(Key):
    secret: str | None = Field(description="Shown once; null when a request is repeated.")


class Keys(BaseModel):
    items: list[Key]
    next_cursor: str | None


class AuditEntry(BaseModel):
    id: str
    timestamp: str
    actor: str
    how: str
    eventType: str
    subjectType: str
    subjectId: str
    before: dict[str, Any] | None
    after: dict[str, Any] | None


class AuditEntries(BaseModel):
    items: list[AuditEntry]
    next_cursor: str | None
