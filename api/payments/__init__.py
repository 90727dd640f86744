"""Money that comes from outside: Stripe and partners, and what it makes true here.

A webhook is only a hint to look. `seen.py` says what a provider may say about one purchase,
`settlement.py` (with `entitlement.py`, the sum of one payment's grants, and `monthly.py`) decides
from it, purely, what ought to be granted and revoked, in the words of `terms.py`; `settling.py`
writes the difference in one transaction, with the rows of `bookkeeping.py` and what `adoption.py`
finds again. The rest fetches: one package a provider for its requests and for reading its answers.
May import `api.rules`,
`api.reading` and `api.storage`; what decides imports neither I/O nor a clock. No rule about credits
lives here that `api.rules` has.
"""
