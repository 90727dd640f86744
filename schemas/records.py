"""Every record of the topics, as msgspec structs. Amounts are integers of micro-credits.

Times are aware datetimes in UTC with microseconds. Absent text is the empty string, so that rows
go into ClickHouse unchanged.
"""

from datetime import datetime
from typing import Annotated, Final, Literal

from msgspec import Meta, Struct, field

from schemas.bounds import LISTED_ID_BYTES_MAX

UNASSIGNED: Final = "group_unassigned"
INT64_MAX: Final = 2**63 - 1
ID_LIMIT_CHARACTERS: Final = 256
DIMENSIONS_LIMIT: Final = 20
MICRO: Final = 1_000_000

Instant = Annotated[datetime, Meta(tz=True)]
"""An input's time: RFC 3339 with an offset; without one nobody knows which instant it is."""

Id = Annotated[str, Meta(extra_json_schema={"minLength": 1, "maxLength": ID_LIMIT_CHARACTERS})]
"""Limits of a fact's values stand in the JSON Schema; decisions check them, so that a fact that
breaks one is refused like any other content and does not hold up what comes after it."""
ListedId = Annotated[Id, Meta(description=f"As JSON at most {LISTED_ID_BYTES_MAX} bytes.")]
Text = Annotated[str, Meta(extra_json_schema={"maxLength": ID_LIMIT_CHARACTERS})]
Amount = Annotated[int, Meta(extra_json_schema={"minimum": 1, "maximum": INT64_MAX})]
SignedAmount = Annotated[
    int, Meta(extra_json_schema={"minimum": -INT64_MAX, "maximum": INT64_MAX, "not": {"const": 0}})
]
Price64 = Annotated[int, Meta(extra_json_schema={"minimum": 0, "maximum": INT64_MAX})]
Currency = Annotated[str, Meta(extra_json_schema={"pattern": "^[A-Z]{3}$"})]
AnchorDay = Annotated[int, Meta(extra_json_schema={"minimum": 1, "maximum": 31})]
Version = Annotated[int, Meta(extra_json_schema={"minimum": 1, "maximum": INT64_MAX})]

PoolKind = Literal["website", "group"]
GrantKind = Literal["monthly", "one_time"]
FundingGroup = Literal["member", "website"]
AssignedBy = Literal["scim", "api", "csv", "manual"]


# ---- facts: topics `memberships` and `credits`


class OrganizationSettings(
    Struct, frozen=True, forbid_unknown_fields=True, tag="organization_settings"
):
    """What an organization chose; replaces all of the former settings from `effective_at` on."""

    funding_group: FundingGroup = "member"
    credit_price_micro: Price64 = 10_000
    """Price of one credit in millionths of the currency's unit; the default is one cent."""
    currency: Currency = "USD"
    billing_anchor_day: AnchorDay = 1
    time_zone: Id = "UTC"


class OrganizationCreated(
    Struct, frozen=True, forbid_unknown_fields=True, tag="organization_created"
):
    """Version 1 of every organization."""

    funding_group: FundingGroup = "member"
    credit_price_micro: Price64 = 10_000
    currency: Currency = "USD"
    billing_anchor_day: AnchorDay = 1
    time_zone: Id = "UTC"


class MemberAssigned(Struct, frozen=True, forbid_unknown_fields=True, tag="member_assigned"):
    """The member is in this group from `effective_at` on (`group_unassigned` for none)."""

    member_id: ListedId
    group_id: ListedId
    how: AssignedBy


class MemberRemoved(Struct, frozen=True, forbid_unknown_fields=True, tag="member_removed"):
    """The member left the organization; later usage is Unassigned."""

    member_id: ListedId


class MemberAlias(Struct, frozen=True, forbid_unknown_fields=True, tag="member_alias"):
    """`alias_hash` (see `schemas.codec.alias_hash`) resolves to the member, or no longer does."""

    member_id: ListedId
    alias_hash: Id
    removed: bool = False


class GroupCreated(Struct, frozen=True, forbid_unknown_fields=True, tag="group_created"):
    group_id: ListedId


class GroupRenamed(Struct, frozen=True, forbid_unknown_fields=True, tag="group_renamed"):
    """The name itself is in the control plane and in ClickHouse's dimension table only."""

    group_id: ListedId


class GroupDeleted(Struct, frozen=True, forbid_unknown_fields=True, tag="group_deleted"):
    group_id: ListedId


class WebsiteAssigned(Struct, frozen=True, forbid_unknown_fields=True, tag="website_assigned"):
    """The website belongs to this group from `effective_at` on (`group_unassigned` for none)."""

    website_id: Id
    group_id: ListedId


class PriceSet(Struct, frozen=True, forbid_unknown_fields=True, tag="price_set"):
    """Price of a meter from `effective_at` on. The control plane publishes the default book to
    every organization; an organization's own price beats the default one."""

    meter: Id
    micro_per_million_units: Price64
    book: Literal["organization", "default"] = "organization"


class Granted(Struct, frozen=True, forbid_unknown_fields=True, tag="granted"):
    """Credits for a pool, eligible for usage with `effective_at <= time < expires_at`."""

    grant_id: ListedId
    pool_kind: PoolKind
    pool_id: Id
    kind: GrantKind
    amount_micro: Amount
    source: Id
    """Where it came from: `stripe:<session or invoice>`, `partner:<reference>`, `admin:<who>`."""
    expires_at: Instant | None = None
    """Required for monthly grants."""
    awaiting_payment: bool = False


class Revoked(Struct, frozen=True, forbid_unknown_fields=True, tag="revoked"):
    """Takes a grant back, whole or in part (refund, dispute, failed payment)."""

    grant_id: ListedId
    amount_micro: Amount
    why: Text


class Adjusted(Struct, frozen=True, forbid_unknown_fields=True, tag="adjusted"):
    """A correction by hand: a positive amount is a one-time grant `adjustment:<version>`, a
    negative one is taken from the pool in burn order and what is missing becomes debt."""

    pool_kind: PoolKind
    pool_id: Id
    amount_micro: SignedAmount
    why: Text


MembershipFact = (
    OrganizationCreated
    | OrganizationSettings
    | MemberAssigned
    | MemberRemoved
    | MemberAlias
    | GroupCreated
    | GroupRenamed
    | GroupDeleted
    | WebsiteAssigned
    | PriceSet
)
CreditFact = Granted | Revoked | Adjusted


class MembershipRecord(Struct, frozen=True, forbid_unknown_fields=True):
    """A record of `memberships`; `version` is gap-free per organization and topic, from 1."""

    organization_id: Id
    version: Version
    recorded_at: Instant
    effective_at: Instant
    fact: MembershipFact


class CreditRecord(Struct, frozen=True, forbid_unknown_fields=True):
    """A record of `credits`; its versions are counted apart from those of `memberships`."""

    organization_id: Id
    version: Version
    recorded_at: Instant
    effective_at: Instant
    fact: CreditFact


# ---- outputs


class Allocation(Struct, frozen=True, gc=False):
    """What one grant paid of an event."""

    pool: PoolKind
    grant_id: str
    amount_micro: int


class RatedEvent(Struct, gc=False):
    """A row of `usage-rated`; `cost_micro = website + group + overage` holds in every one.

    Revision 0 is the event; a correction is a further row with signed deltas whose revision is
    the version of the correcting fact.
    """

    organization_id: str
    source: str
    event_id: str
    revision: int
    event_time: datetime
    meter: str
    subject: str
    member_id: str
    """The member that the subject resolved to; the subject itself where it is unknown."""
    resolved_by: str
    """`member`, `alias` or `unknown`."""
    website_id: str
    dimensions: dict[str, str]
    stamped_group_id: str
    funding_group_id: str
    """The group whose pool was asked, empty where none was (Unassigned, deleted)."""
    membership_version: int
    settings_version: int
    price_version: int
    price_micro: int
    """Micro-credits per million units."""
    quantity_micro: int
    cost_micro: int
    website_debit_micro: int
    group_debit_micro: int
    overage_micro: int
    credit_price_micro: int
    currency: str
    allocations: list[Allocation]
    website_balance_micro: int
    group_balance_micro: int
    input_topic: str
    input_partition: int
    input_offset: int
    appended_at: datetime
    recorded_at: datetime


class Posting(Struct, frozen=True):
    """A row of `ledger`: one leg of a movement. The legs of an `entry_id` sum to zero."""

    organization_id: str
    entry_id: str
    """Derived: `grant:<grant_id>`, `forfeit:<grant_id>`, `revoke:<version>`, `adjust:<version>`,
    `group-deleted:<group_id>:<grant_id>`, `group-debt:<group_id>`. A group's id with a colon in it
    would run together with the grant's: then `group-closed:<length>:<group_id>:<grant_id>`."""
    leg: int
    kind: str
    """`grant`, `forfeit`, `revoke`, `adjustment` or `group_deleted`."""
    account: str
    """`available` and `debt` belong to the pool; `issued`, `forfeited`, `revoked`, `adjusted`
    are the other side. `uncollected` is the organization's: what was spent of credits that were
    taken back, and has no pool any more that could owe it."""
    pool_kind: PoolKind
    pool_id: str
    grant_id: str
    amount_micro: int
    balance_after_micro: int
    """The pool's balance (available minus debt) after the whole entry."""
    caused_by_topic: str
    caused_by_version: int
    """The fact; 0 where the clock caused it (forfeits)."""
    effective_at: datetime
    recorded_at: datetime


class FactApplied(Struct, frozen=True):
    """A row of `facts-applied`."""

    organization_id: str
    topic: str
    version: int
    type: str
    effective_at: datetime
    recorded_at: datetime
    applied_at: datetime
    member_id: str
    group_id: str
    website_id: str
    grant_id: str
    how: str
    fact: str
    """The whole fact as JSON."""
    input_partition: int
    input_offset: int


# ---- state: values of the changelogs `balances` and `metering-state`


class Grant(Struct):
    """A live grant of a pool: something of it remains and it is not forfeited yet."""

    grant_id: str
    kind: GrantKind
    remaining_micro: int
    effective_at: datetime
    expires_at: datetime | None
    version: int


class Pool(Struct):
    """The credits of one website or group. `grants` is in burn order."""

    grants: list[Grant] = field(default_factory=list)
    debt_micro: int = 0
    balance_micro: int = 0
    """Sum of what remains of the grants, minus the debt."""


class Span(Struct, frozen=True):
    """Something that holds from `effective_at` on, because the fact `version` says so."""

    effective_at: datetime
    version: int
    value: str


class Price(Struct, frozen=True):
    effective_at: datetime
    version: int
    micro_per_million_units: int


class SettingsSpan(Struct, frozen=True):
    effective_at: datetime
    version: int
    settings: OrganizationSettings


class Timeline(Struct):
    """Groups of a member or website, or members of an alias (empty: nobody's), over time.

    Sorted by (effective_at, version).
    """

    spans: list[Span] = field(default_factory=list)


class Organization(Struct):
    """Its settings over time, and how far each topic's facts are applied."""

    settings: list[SettingsSpan] = field(default_factory=list)
    memberships_version: int = 0
    credits_version: int = 0
    memberships_stopped_at: int = 0
    """The version that arrived with two contents; 0 while facts flow."""
    credits_stopped_at: int = 0


class Group(Struct):
    created_at: datetime
    deleted_at: datetime | None = None
    closed: bool = False
    """Its pool is gone: the deletion has come into force and what was left is forfeited."""


class Prices(Struct):
    """Both books of one meter, each sorted by (effective_at, version)."""

    organization: list[Price] = field(default_factory=list)
    default: list[Price] = field(default_factory=list)


class IssuedGrant(Struct):
    """Every grant ever applied, for ever: what a revocation is checked against."""

    pool_kind: PoolKind
    pool_id: str
    amount_micro: int
    revoked_micro: int = 0
    forfeited_micro: int = 0
    """Of it forfeited, or taken by adjustments, and not revoked since: gone without being spent,
    so that its revocation makes no debt."""


class FactDigest(Struct):
    """What a version said, to tell a repetition from a conflict."""

    digest: str


class Expiry(Struct):
    """An index entry: a grant whose remainder is to be forfeited after the late grace.

    With an empty `grant_id`: a group whose deletion comes into force at that time.
    """

    pool_kind: PoolKind
    pool_id: str
    grant_id: str
