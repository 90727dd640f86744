"""All of payments of one process: who can be paid by, and the tasks that follow what they say."""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Final

from api.options import PaymentOptions
from api.payments.inbox import Chore, Inbox, drop_bodies
from api.payments.looking import Looker, Provider
from api.payments.partners.changes import PartnerChanges
from api.payments.partners.client import PartnerClient
from api.payments.partners.file import Partners
from api.payments.partners.provider import PartnerProvider
from api.payments.partners.till import PartnerTill
from api.payments.providers import RETURN_PATH, Payments, Returns, Till
from api.payments.reconcile import Nightly, Reconciliation, rehearsal_of
from api.payments.renewals import Renewals
from api.payments.stripe.changes import StripeChanges
from api.payments.stripe.client import StripeRequests
from api.payments.stripe.naming import StripeNaming
from api.payments.stripe.restoring import StripeRestoring
from api.payments.stripe.till import StripeProvider, StripeTill
from api.payments.terms import Options
from api.rules.change import Control
from api.storage.purchases import STRIPE

RENEWALS_EVERY: Final = timedelta(minutes=1)
NIGHTLY_LOOK_EVERY: Final = timedelta(minutes=5)
FORGET_EVERY: Final = timedelta(hours=6)


@dataclass
class Desk:
    """Made once in `api.app`; `payments` is what routes ask, `inbox` keeps their webhooks."""

    control: Control
    options: PaymentOptions
    payments: Payments
    looker: Looker
    inbox: Inbox
    stripe: StripeProvider | None
    partners: Partners
    partner_providers: dict[str, PartnerProvider]
    """By the partner's name."""
    reconciliations: Sequence[Reconciliation]

    async def start(self) -> None:
        """Works in the background where anybody can be paid by."""
        if self.looker.providers:
            await self.inbox.start()

    async def stop(self) -> None:
        await self.inbox.stop()
        if self.stripe is not None:
            await self.stripe.requests.close()
        for partner in self.partner_providers.values():
            await partner.client.close()


def make_desk(
    control: Control,
    options: PaymentOptions,
    base_url: str,
    partners: Partners,
    *,
    is_rehearsal: bool = False,
) -> Desk:
    """Asks nobody anything yet. In a rehearsal nothing is written, here or at a provider."""
    if is_rehearsal:
        control = rehearsal_of(control)
    providers: dict[str, Provider] = {}
    looker = Looker(control, providers, Options(place_unpaid_renewals=options.renewals_awaiting))
    stripe = till = None
    if options.is_on:
        page = base_url + RETURN_PATH
        stripe = StripeProvider(control, StripeRequests(options), Returns(page, page), is_rehearsal)
        till = StripeTill(stripe, looker)
        providers[STRIPE] = stripe
    by_name = {
        name: PartnerProvider(control, PartnerClient(partner), is_rehearsal)
        for name, partner in partners.by_name.items()
    }
    tills: dict[str, Till] = {}
    for name, provider in by_name.items():
        providers[provider.provider] = provider
        tills[name] = PartnerTill(provider, looker)
    payments = Payments(till, tills, partners.names_by_organization)
    reconciliations = []
    if stripe is not None:
        changes = _changes(stripe)
        reconciliations.append(Reconciliation(control, looker, STRIPE, changes, is_rehearsal))
    reconciliations += [
        Reconciliation(control, looker, provider.provider, PartnerChanges(provider), is_rehearsal)
        for provider in by_name.values()
    ]
    inbox = Inbox(control, looker, _chores(control, options, stripe, reconciliations))
    return Desk(
        control, options, payments, looker, inbox, stripe, partners, by_name, reconciliations
    )


def _changes(stripe: StripeProvider) -> StripeChanges:
    control, requests = stripe.control, stripe.requests
    naming = StripeNaming(control.store, requests)
    return StripeChanges(requests, naming, StripeRestoring(control, requests))


def _chores(
    control: Control,
    options: PaymentOptions,
    stripe: StripeProvider | None,
    reconciliations: Sequence[Reconciliation],
) -> list[Chore]:
    async def forget() -> None:
        while await asyncio.to_thread(drop_bodies, control.store, control.clock()):
            pass

    chores = [Chore("forget", FORGET_EVERY, forget)]
    if stripe is not None and options.renewal_lead is not None:
        renewals = Renewals(control, stripe.requests, options.renewal_lead)
        chores.append(Chore("renewals", RENEWALS_EVERY, renewals.place_due))
    for reconciliation in reconciliations:
        nightly = Nightly(reconciliation, options.reconcile_hour_utc)
        name = f"reconciliation of {reconciliation.provider}"
        chores.append(Chore(name, NIGHTLY_LOOK_EVERY, nightly.run_if_due))
    return chores
