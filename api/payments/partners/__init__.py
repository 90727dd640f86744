"""Partners: who charges an organization in place of Stripe, by the contract of `deploy/partner.md`.

`file.py` says who they are, `signing.py` and `outward.py` how they are talked with, `client.py`
asks, `reading.py` makes `seen.Seen` of what they say, `provider.py` and `till.py` are what the
inbox and the routes ask of them. Nothing that a webhook says is parsed before its signature is
right, and no request is sent to an address that was not checked.
"""
