"""The reference partner: a small server that implements `deploy/partner.md`, for tests and `up`.

It charges nobody. What it keeps is in SQLite and survives `kill -9`; it listens on 127.0.0.1 only.
It shares no code with the pipeline, so that the contract is read twice: `shapes` are its own, its
signatures are the library's. `/_control/` holds the switches for tests.
"""

from deploy.embedded.partner.process import EmbeddedPartner

__all__ = ["EmbeddedPartner"]
