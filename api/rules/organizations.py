"""Making organizations and changing their settings."""

from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import select

from api.errors import conflict, invalid
from api.ids import new_id
from api.rules.change import Change, Transaction, refuse_while_halted
from api.rules.names import clean_id, clean_name
from api.rules.prices import tell_default_price
from api.storage.ledgers import Price
from api.storage.models import Organization
from api.storage.store import lock_price_book
from schemas import records
from schemas.records import FundingGroup, OrganizationCreated
from schemas.time_zones import is_time_zone


@dataclass(frozen=True, slots=True)
class OrganizationSettings:
    """What an organization chose; amounts in micro-units of the currency."""

    funding_group: FundingGroup = "member"
    credit_price_micro: int = 10_000
    currency: str = "USD"
    billing_anchor_day: int = 1
    time_zone: str = "UTC"

    def check(self) -> None:
        """Raises Refused where a setting cannot be."""
        if not 1 <= self.billing_anchor_day <= 31:
            raise invalid("The anchor day is a day of the month, 1 to 31.", "billing_anchor_day")
        if len(self.currency) != 3 or not self.currency.isascii() or not self.currency.isupper():
            raise invalid("A currency is three capital letters, as `USD`.", "currency")
        if not 0 <= self.credit_price_micro <= 10**15:
            raise invalid("The price of a credit is 0 to 10^15 micro-units.", "credit_price_micro")
        if not is_time_zone(self.time_zone):
            raise invalid(
                f"There is no time zone {self.time_zone!r}.",
                "time_zone",
                "Use a name of the IANA database, as `Europe/Berlin`.",
            )


def settings_of(organization: Organization) -> OrganizationSettings:
    return OrganizationSettings(
        "website" if organization.funding_group == "website" else "member",
        organization.credit_price_micro,
        organization.currency,
        organization.billing_anchor_day,
        organization.time_zone,
    )


def create_organization(
    transaction: Transaction,
    name: str,
    settings: OrganizationSettings,
    organization_id: str | None = None,
    effective_at: datetime | None = None,
) -> Change:
    """A new organization with the default price book; `effective_at` may lie in the past, for
    usage that is already there. Raises Refused (409) where the id is taken."""
    settings.check()
    cleaned = clean_name(name)
    chosen = clean_id(organization_id, "id") if organization_id else new_id("org")
    lock_price_book(transaction.session)
    if transaction.session.get(Organization, chosen) is not None:
        raise conflict(
            "organization_exists",
            f"There is an organization {chosen!r} already.",
            "id",
            "Choose another id.",
        )
    # The topics have facts of this id already: its versions would be taken.
    refuse_while_halted(transaction.session, chosen)
    now = transaction.clock()
    organization = Organization(
        id=chosen,
        name=cleaned,
        funding_group=settings.funding_group,
        credit_price_micro=settings.credit_price_micro,
        currency=settings.currency,
        billing_anchor_day=settings.billing_anchor_day,
        time_zone=settings.time_zone,
        memberships_version=0,
        credits_version=0,
        created_at=now,
        updated_at=now,
    )
    transaction.session.add(organization)
    transaction.session.flush()
    change = transaction.adopt(organization, now)
    change.membership_fact(
        OrganizationCreated(
            settings.funding_group,
            settings.credit_price_micro,
            settings.currency,
            settings.billing_anchor_day,
            settings.time_zone,
        ),
        min(effective_at or now, now),
    )
    for price in transaction.session.scalars(
        select(Price).where(Price.organization_id.is_(None)).order_by(Price.id)
    ):
        tell_default_price(change, price)
    change.audit("organization.create", ("organization", chosen), None, _audit_fields(organization))
    change.dimension("organization", chosen)
    return change


def change_settings(change: Change, name: str | None, settings: OrganizationSettings) -> None:
    """New settings from now on; what was rated stays as it was rated."""
    settings.check()
    organization = change.organization
    before = _audit_fields(organization)
    if name is not None:
        organization.name = clean_name(name)
        change.dimension("organization", organization.id)
    if settings != settings_of(organization):
        organization.funding_group = settings.funding_group
        organization.credit_price_micro = settings.credit_price_micro
        organization.currency = settings.currency
        organization.billing_anchor_day = settings.billing_anchor_day
        organization.time_zone = settings.time_zone
        change.dimension("organization", organization.id)
        change.membership_fact(
            records.OrganizationSettings(
                settings.funding_group,
                settings.credit_price_micro,
                settings.currency,
                settings.billing_anchor_day,
                settings.time_zone,
            )
        )
    if before != _audit_fields(organization):
        subject = ("organization", organization.id)
        change.audit("organization.update", subject, before, _audit_fields(organization))


def _audit_fields(organization: Organization) -> dict[str, object]:
    settings = settings_of(organization)
    return {
        "name": organization.name,
        "funding_group": settings.funding_group,
        "credit_price_micro": settings.credit_price_micro,
        "currency": settings.currency,
        "billing_anchor_day": settings.billing_anchor_day,
        "time_zone": settings.time_zone,
    }
