"""What becomes of a fact: numbered, judged, and turned into changes of the state and postings.

Versions are gap-free per organization and topic. A repetition is ignored; the same version with
other content, or a version too far ahead, is refused and nothing moves until it is mended. A
well-numbered fact that is refused for its content consumes its version, so that one bad fact does
not hold up the rest.
"""

from datetime import UTC, datetime, timedelta
from typing import Any, Final

from msgspec import Struct, field, structs
from xxhash import xxh3_128_hexdigest

from schemas.codec import decode_credit, decode_membership, encode
from schemas.reasons import Reason
from schemas.records import (
    ID_LIMIT_CHARACTERS,
    INT64_MAX,
    CreditRecord,
    FactApplied,
    FactDigest,
    Granted,
    MembershipRecord,
    Organization,
    OrganizationCreated,
    Posting,
)
from schemas.topics import MEMBERSHIPS
from streams.decisions.credit_facts import decide_credit, pool_named_by
from streams.decisions.envelopes import key_text
from streams.decisions.ledger import Cause
from streams.decisions.membership_facts import decide_membership
from streams.decisions.outcomes import Rejected, shown
from streams.decisions.state import Changes, Draft, State, fact_key, organization_key

LATE_AFTER: Final = timedelta(minutes=1)
"""A fact that takes effect longer ago than this may find events stamped without it."""

FactRecord = MembershipRecord | CreditRecord


class FactInput(Struct, frozen=True):
    """A record of `memberships` or `credits`, and the time of the decision in UTC."""

    topic: str
    """Without the configured prefix."""
    partition: int
    offset: int
    key: bytes | None
    value: bytes | None
    now: datetime
    home_partition: int
    """Where the facts of the organization that the key names belong."""


class FactOutcome(Struct, frozen=True):
    """What to write and to change. A refused fact may still change the state: its version."""

    applied: FactApplied | None = None
    postings: list[Posting] = field(default_factory=list)
    rejected: Rejected | None = None
    ignored: bool = False
    """A repetition of what was known."""
    late: bool = False
    """Applied, but it takes effect in the past: earlier stamps may differ from what is known."""
    changes: Changes = field(default_factory=dict)
    """For `state.apply_changes`."""


def decide_fact(fact_input: FactInput, state: State) -> FactOutcome:
    """The outcome of a fact. Reads the state and changes nothing."""
    record = _read(fact_input)
    if isinstance(record, Rejected):
        return FactOutcome(rejected=record)
    organization_id = record.organization_id
    organization: Organization | None = state.get(organization_key(organization_id))
    if organization is None:
        if not (record.version == 1 and isinstance(record.fact, OrganizationCreated)):
            return FactOutcome(rejected=_unknown_organization(record))
        organization = Organization()
    version, stopped_at = _position(organization, fact_input.topic)
    digest = _digest(record)
    if record.version <= version:
        return _repeated(fact_input, record, digest, organization, state)
    if record.version > version + 1:
        return _refused(
            Reason.VERSION_GAP,
            f"Version {record.version} of {fact_input.topic} arrived for {shown(organization_id)}, "
            f"but {version + 1} is next; publish that, then this again.",
        )
    if stopped_at:
        return _refused(
            Reason.FACTS_STOPPED,
            f"Facts of {shown(organization_id)} in {fact_input.topic} are stopped, because version "
            f"{stopped_at} arrived with other content; publish the applied one again, then this.",
        )
    return _judged(fact_input, record, digest, organization, state)


def _read(fact_input: FactInput) -> FactRecord | Rejected:
    if not fact_input.value:
        return Rejected(Reason.EMPTY_VALUE, "The record has no value.")
    try:
        record: FactRecord = (
            decode_membership(fact_input.value)
            if fact_input.topic == MEMBERSHIPS
            else decode_credit(fact_input.value)
        )
        record = _in_utc(record)
    except RecursionError:
        return Rejected(Reason.INVALID_FACT, "The value is nested too deeply.")
    except (ValueError, OverflowError) as error:
        return Rejected(
            Reason.INVALID_FACT,
            f"The value is no {fact_input.topic} record: {shown(str(error), 200)}.",
        )
    organization_id = record.organization_id
    if not 1 <= len(organization_id) <= ID_LIMIT_CHARACTERS or "\0" in organization_id:
        return Rejected(
            Reason.INVALID_FACT,
            f"organization_id is {shown(organization_id)}; it must have 1 to "
            f"{ID_LIMIT_CHARACTERS} characters, none of them NUL.",
        )
    if not 1 <= record.version <= INT64_MAX:
        return Rejected(
            Reason.INVALID_FACT, f"version is {shown(record.version)}; versions count from 1."
        )
    if fact_input.key is None or key_text(fact_input.key) != organization_id:
        return Rejected(
            Reason.WRONG_KEY,
            f"organization_id is {shown(organization_id)}, but the record's key is "
            f"{shown(fact_input.key)}.",
        )
    if fact_input.partition != fact_input.home_partition:
        return Rejected(
            Reason.WRONG_PARTITION,
            f"Facts of {shown(organization_id)} belong to partition {fact_input.home_partition}; "
            f"this one came to {fact_input.partition}: its producer partitions by another hash "
            "than murmur2.",
        )
    return record


def _in_utc(record: FactRecord) -> FactRecord:
    """The same instants spelled in UTC, so that equal facts have equal digests."""
    fact = record.fact
    if isinstance(fact, Granted) and fact.expires_at is not None:
        fact = structs.replace(fact, expires_at=fact.expires_at.astimezone(UTC))
    return structs.replace(
        record,
        fact=fact,
        recorded_at=record.recorded_at.astimezone(UTC),
        effective_at=record.effective_at.astimezone(UTC),
    )


def _digest(record: FactRecord) -> FactDigest:
    """Of everything but `recorded_at`: publishing again records again."""
    return FactDigest(xxh3_128_hexdigest(encode((record.effective_at, record.fact))))


def _position(organization: Organization, topic: str) -> tuple[int, int]:
    """The last version consumed, and the version at which the topic is stopped (0: not)."""
    if topic == MEMBERSHIPS:
        return organization.memberships_version, organization.memberships_stopped_at
    return organization.credits_version, organization.credits_stopped_at


def _at_version(organization: Organization, topic: str, version: int) -> Organization:
    if topic == MEMBERSHIPS:
        return structs.replace(organization, memberships_version=version)
    return structs.replace(organization, credits_version=version)


def _stopped(organization: Organization, topic: str, version: int) -> Organization:
    if topic == MEMBERSHIPS:
        return structs.replace(organization, memberships_stopped_at=version)
    return structs.replace(organization, credits_stopped_at=version)


def _repeated(
    fact_input: FactInput,
    record: FactRecord,
    digest: FactDigest,
    organization: Organization,
    state: State,
) -> FactOutcome:
    """A version that was consumed before: the same again mends a stop, another begins one."""
    organization_id, topic = record.organization_id, fact_input.topic
    known: FactDigest | None = state.get(fact_key(organization_id, topic, record.version))
    assert known is not None, "every consumed version has its digest"
    _, stopped_at = _position(organization, topic)
    key = organization_key(organization_id)
    if known.digest == digest.digest:
        mended = stopped_at == record.version
        changes = {key: _stopped(organization, topic, 0)} if mended else {}
        return FactOutcome(ignored=True, changes=changes)
    changes = {} if stopped_at else {key: _stopped(organization, topic, record.version)}
    return FactOutcome(
        rejected=Rejected(
            Reason.VERSION_CONFLICT,
            f"Version {record.version} of {topic} for {shown(organization_id)} was applied with "
            "other content; its facts stop until the applied content is published again.",
        ),
        changes=changes,
    )


def _judged(
    fact_input: FactInput,
    record: FactRecord,
    digest: FactDigest,
    organization: Organization,
    state: State,
) -> FactOutcome:
    """The next version: applied, or refused for its content; consumed either way.

    Except that of an organization that does not exist: it has nothing to keep a version in, so
    version 1 can be published again.
    """
    organization_id, topic = record.organization_id, fact_input.topic
    draft = Draft(state)
    cause = Cause(organization_id, topic, record.version, record.effective_at, fact_input.now)
    if isinstance(record, MembershipRecord):
        result = decide_membership(record, draft, cause)
    else:
        result = decide_credit(record, draft, cause)
    rejected = result if isinstance(result, Rejected) else None
    if rejected is not None:
        draft = Draft(state)
        if not organization.settings:
            return FactOutcome(rejected=rejected)
    current: Organization = draft.get(organization_key(organization_id)) or organization
    draft.put(organization_key(organization_id), _at_version(current, topic, record.version))
    draft.put(fact_key(organization_id, topic, record.version), digest)
    if rejected is not None:
        return FactOutcome(rejected=rejected, changes=draft.changes)
    return FactOutcome(
        applied=_row(fact_input, record, draft),
        postings=result,  # type: ignore[arg-type]
        late=record.effective_at < fact_input.now - LATE_AFTER,
        changes=draft.changes,
    )


def _row(fact_input: FactInput, record: FactRecord, draft: Draft) -> FactApplied:
    fact: Any = record.fact
    group_id, website_id = getattr(fact, "group_id", ""), getattr(fact, "website_id", "")
    if isinstance(record, CreditRecord):
        name = pool_named_by(record, draft)
        group_id = name.pool_id if name.kind == "group" else ""
        website_id = name.pool_id if name.kind == "website" else ""
    return FactApplied(
        organization_id=record.organization_id,
        topic=fact_input.topic,
        version=record.version,
        type=fact.__struct_config__.tag,
        effective_at=record.effective_at,
        recorded_at=record.recorded_at,
        applied_at=fact_input.now,
        member_id=getattr(fact, "member_id", ""),
        group_id=group_id,
        website_id=website_id,
        grant_id=getattr(fact, "grant_id", ""),
        how=getattr(fact, "how", ""),
        fact=encode(fact).decode(),
        input_partition=fact_input.partition,
        input_offset=fact_input.offset,
    )


def _unknown_organization(record: FactRecord) -> Rejected:
    return Rejected(
        Reason.UNKNOWN_ORGANIZATION,
        f"{shown(record.organization_id)} has no organization_created yet, which must be version "
        "1 of memberships; publish that, then this again.",
    )


def _refused(reason: Reason, detail: str) -> FactOutcome:
    return FactOutcome(rejected=Rejected(reason, detail))
