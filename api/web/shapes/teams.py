"""Answers of `/teams`, with Cursor's field names. Cents are fractions."""

from typing import Any

from pydantic import BaseModel, Field

TIME = "2026-11-01T00:00:00.000Z"


class BillingCycle(BaseModel):
    """Half-open, in UTC: `cycleStart <= time < cycleEnd`."""

    cycleStart: str = Field(examples=[TIME])
    cycleEnd: str = Field(examples=["2026-12-01T00:00:00.000Z"])


class DailySpend(BaseModel):
    date: str = Field(examples=["2026-11-15"], description="A day of the organization's calendar.")
    spendCents: float = Field(examples=[2450.125487])


class GroupMember(BaseModel):
    userId: str = Field(examples=["user_42"])
    name: str = Field(examples=["Ann"])
    email: str = Field(examples=["ann@example.com"])
    joinedAt: str = Field(examples=[TIME])


class ReportedMember(GroupMember):
    leftAt: str | None = Field(examples=[None])
    spendCents: float = Field(examples=[12.5])
    dailySpend: list[DailySpend] | None = Field(
        default=None, description="Only where one group is asked for."
    )


class Described(BaseModel):
    id: str = Field(examples=["group_01ARZ3NDEKTSV4RRFFQ69G5FAV"])
    name: str = Field(examples=["Research"])
    type: str = Field(examples=["BILLING"])
    directoryGroupId: str | None = Field(examples=[None])
    configuredBy: str = Field(examples=["api"], description="`scim`, `api`, `csv` or `manual`.")
    nameConflict: str | None = Field(
        examples=[None], description="The directory group's name, where it is taken here."
    )
    createdAt: str = Field(examples=[TIME])
    updatedAt: str = Field(examples=[TIME])
    memberCount: int = Field(examples=[1])


class TeamsSyncConflict(BaseModel):
    """A member whom several synced groups want; it is in the first."""

    userId: str = Field(examples=["user_42"])
    groupIds: list[str]


class Reported(Described):
    spendCents: float = Field(examples=[2450.125487])
    currentMembers: list[ReportedMember]
    formerMembers: list[ReportedMember]
    dailySpend: list[DailySpend]
    syncConflicts: list[TeamsSyncConflict]


class Changed(Described):
    members: list[GroupMember]


class Groups(BaseModel):
    groups: list[Reported]
    unassignedGroup: Reported
    billingCycle: BillingCycle


class ReportedGroup(BaseModel):
    group: Reported
    billingCycle: BillingCycle


class ChangedGroup(BaseModel):
    group: Changed


class TeamMember(BaseModel):
    id: str = Field(examples=["user_42"])
    name: str = Field(examples=["Ann"])
    email: str = Field(examples=["ann@example.com"])
    role: str = Field(examples=["member"])
    isRemoved: bool


class TeamMembers(BaseModel):
    teamMembers: list[TeamMember]


class MemberSpend(BaseModel):
    """`spendCents` is what no credits covered; `overallSpendCents` is all."""

    userId: str = Field(examples=["user_42"])
    name: str = Field(examples=["Ann"])
    email: str = Field(examples=["ann@example.com"])
    role: str = Field(examples=["member"])
    spendCents: float = Field(examples=[0.0])
    overallSpendCents: float = Field(examples=[2450.125487])
    fastPremiumRequests: int = Field(examples=[0])
    hardLimitOverrideDollars: int = Field(examples=[0])
    monthlyLimitDollars: int | None = Field(examples=[None])
    effectivePerUserLimitDollars: int | None = Field(examples=[None])


class TeamSpend(BaseModel):
    teamMemberSpend: list[MemberSpend]
    subscriptionCycleStart: int = Field(description="Milliseconds.")
    totalMembers: int
    totalPages: int


class Pagination(BaseModel):
    numPages: int
    currentPage: int
    pageSize: int
    hasNextPage: bool
    hasPreviousPage: bool


class Period(BaseModel):
    """Milliseconds, both inclusive."""

    startDate: int
    endDate: int


class UsageEvents(BaseModel):
    totalUsageEventsCount: int
    pagination: Pagination
    usageEvents: list[dict[str, Any]]
    period: Period


class DailyPagination(BaseModel):
    page: int
    pageSize: int
    totalUsers: int
    totalPages: int
    hasNextPage: bool
    hasPreviousPage: bool


class DailyUsage(BaseModel):
    data: list[dict[str, Any]]
    period: Period
    pagination: DailyPagination | None = None


class AuditEvent(BaseModel):
    event_id: str = Field(examples=["42"])
    timestamp: str = Field(examples=[TIME])
    ip_address: str = Field(examples=[""], description="Empty: addresses are not kept.")
    user_email: str = Field(
        examples=["key:key_01ARZ3NDEKTSV4RRFFQ69G5FAV"],
        description="The key or command that made the change.",
    )
    event_type: str = Field(examples=["add_user"])
    event_data: dict[str, Any] = Field(
        description="`action`, `how`, `subject_type`, `subject_id`, `before` and `after`."
    )


class AuditPagination(BaseModel):
    page: int
    pageSize: int
    totalCount: int
    totalPages: int
    hasNextPage: bool
    hasPreviousPage: bool


class AuditParams(BaseModel):
    """What was asked for: milliseconds, both inclusive."""

    teamId: str = Field(examples=["org_demo"])
    startDate: int
    endDate: int


class AuditLogs(BaseModel):
    events: list[AuditEvent]
    pagination: AuditPagination
    params: AuditParams
