"""A stand-in for Stripe: stateful, on this machine, and no money moves.

Lives here: what a shop needs of Stripe's API in the shapes of the pinned version (`resources.py`
lists the requests), the hosted pages, signed webhooks with retries, a clock that can be moved, and
under `/_control/` the switches of tests (`control.py`; `driving.py` is their client).
Rules: it listens on 127.0.0.1 only. What it does not do is refused by name, never ignored: the
parameters are checked against the classes of Stripe's own library. What was answered survives
`kill -9`.
"""

from deploy.embedded.stripe.process import EmbeddedStripe

__all__ = ["EmbeddedStripe"]
