"""A shop's webhook endpoint that keeps what it was sent, and answers as it is told."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import stripe


@dataclass
class Endpoint:
    """Where it is, the events that it took, and with which status it answers."""

    url: str
    secret: str
    status: int = 200
    events: list[stripe.Event] = field(default_factory=list)
    refused: list[str] = field(default_factory=list)

    @property
    def types(self) -> list[str]:
        return [event.type for event in self.events]


@contextmanager
def endpoint(secret: str) -> Iterator[Endpoint]:
    held = Endpoint("", secret)

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            status = held.status
            try:
                signature = self.headers["Stripe-Signature"]
                event = stripe.Webhook.construct_event(body, signature, held.secret)
                held.events.append(event)
            except stripe.SignatureVerificationError as error:
                held.refused.append(str(error))
                status = 400
            self.send_response(status)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *arguments: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        held.url = f"http://127.0.0.1:{server.server_port}/webhooks/stripe"
        thread = threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True)
        thread.start()
        try:
            yield held
        finally:
            server.shutdown()
            thread.join()
