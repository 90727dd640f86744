"""`python -m deploy.health URL`: exit 0 when the address answers 200, else 1 and its answer.

For health checks of containers, whose image has neither curl nor wget. Standard library only.
"""

import sys
from http import HTTPStatus
from http.client import HTTPConnection, HTTPException
from urllib.parse import urlsplit

TIMEOUT_SECONDS = 4.0
ANSWER_BYTES_MAX = 1_000


def main() -> int:
    address = urlsplit(sys.argv[1])
    connection = HTTPConnection(address.netloc, timeout=TIMEOUT_SECONDS)
    try:
        connection.request("GET", address.path)
        answer = connection.getresponse()
        text = answer.read(ANSWER_BYTES_MAX).decode("utf-8", "replace")
    except (OSError, HTTPException) as error:
        sys.stderr.write(f"{error}\n")
        return 1
    finally:
        connection.close()
    if answer.status != HTTPStatus.OK:
        sys.stderr.write(f"{answer.status} {text}\n")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
