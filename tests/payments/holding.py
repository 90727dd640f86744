"""A proxy before the stand-in for Stripe that holds one request, so that its asker can be killed
while it waits: before Stripe has heard of it, or after Stripe has done it.
"""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Literal

import httpx

WAIT_S = 60
HOP_HEADERS = {"connection", "content-length", "transfer-encoding", "content-encoding", "host"}
Moment = Literal["before", "after"]


@dataclass
class Holding:
    """Holds the next request to `path` when `hold` was called, until `let_go`."""

    url: str
    path: str
    moment: Moment | None = None
    is_held: threading.Event = field(default_factory=threading.Event)
    _released: threading.Event = field(default_factory=threading.Event)

    def hold(self, moment: Moment) -> None:
        self.moment = moment
        self.is_held.clear()
        self._released.clear()

    def let_go(self) -> None:
        self.moment = None
        self._released.set()

    def pause(self, moment: Moment, path: str) -> None:
        """Waits here, where this is what is to be held."""
        if self.moment == moment and path == self.path:
            self.is_held.set()
            assert self._released.wait(WAIT_S), "nobody let go"


@contextmanager
def holding(target: str, path: str) -> Iterator[Holding]:
    """Serves the target on a port of its own."""
    client = httpx.Client(base_url=target, timeout=WAIT_S)

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
            headers = {k: v for k, v in self.headers.items() if k.lower() not in HOP_HEADERS}
            held.pause("before", self.path)
            answer = client.request(self.command, self.path, content=body, headers=headers)
            held.pause("after", self.path)
            try:
                self.send_response(answer.status_code)
                for name, value in answer.headers.items():
                    if name.lower() not in HOP_HEADERS:
                        self.send_header(name, value)
                self.send_header("Content-Length", str(len(answer.content)))
                self.end_headers()
                self.wfile.write(answer.content)
            except ConnectionError:
                self.close_connection = True  # whoever asked was killed

        do_GET = do_DELETE = do_POST

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        held = Holding(f"http://127.0.0.1:{server.server_port}", path)
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        try:
            yield held
        finally:
            held.let_go()
            server.shutdown()
            thread.join(WAIT_S)
            client.close()
