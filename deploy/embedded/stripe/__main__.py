"""`python -m deploy.embedded.stripe`: the stand-in for Stripe on a port of this machine.

The key and the other secrets come from the environment, never from the command line, which every
process of the machine can read.
"""

import argparse
import os
from pathlib import Path

from deploy.embedded.stripe.app import Settings, make_server

KEY, TOKEN = "STRIPE_STAND_IN_KEY", "STRIPE_STAND_IN_TOKEN"
WEBHOOK_URL, WEBHOOK_SECRET = "STRIPE_STAND_IN_WEBHOOK_URL", "STRIPE_STAND_IN_WEBHOOK_SECRET"


def main() -> None:
    parser = argparse.ArgumentParser(prog="deploy.embedded.stripe", description=__doc__)
    parser.add_argument("--path", type=Path, required=True, help="directory of its data")
    parser.add_argument("--port", type=int, required=True)
    arguments = parser.parse_args()
    if missing := [name for name in (KEY, TOKEN) if not os.environ.get(name)]:
        parser.error(f"the environment lacks {', '.join(missing)}")
    settings = Settings(
        directory=arguments.path,
        port=arguments.port,
        key=os.environ[KEY],
        token=os.environ[TOKEN],
        webhook_url=os.environ.get(WEBHOOK_URL, ""),
        webhook_secret=os.environ.get(WEBHOOK_SECRET, ""),
    )
    make_server(settings).run()


main()
