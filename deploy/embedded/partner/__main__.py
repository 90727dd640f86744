"""`python -m deploy.embedded.partner DIRECTORY PORT`; its keys come by the environment."""

import os
import sys
from pathlib import Path

from deploy.embedded.partner.app import Keys
from deploy.embedded.partner.serving import make_server


def main() -> None:
    directory, port = Path(sys.argv[1]), int(sys.argv[2])
    keys = Keys(os.environ["PARTNER_SIGNING_SECRET"], os.environ["PARTNER_WEBHOOK_SECRET"])
    server, books = make_server(directory, port, keys)
    server.run()
    books.close()


if __name__ == "__main__":
    main()
