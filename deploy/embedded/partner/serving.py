"""The server itself: one process that serves until a signal ends it, or a thread of a test."""

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import uvicorn

from deploy.embedded.partner.app import Keys, make_app
from deploy.embedded.partner.books import Books

BOOKS_FILE = "partner.sqlite"
SHUTDOWN_S = 1


def make_server(directory: Path, port: int, keys: Keys) -> tuple[uvicorn.Server, Books]:
    """Not started yet; on 127.0.0.1 only."""
    books = Books(directory / BOOKS_FILE)
    config = uvicorn.Config(
        make_app(books, keys, f"http://127.0.0.1:{port}"),
        host="127.0.0.1",
        port=port,
        log_level="warning",
        access_log=False,
        server_header=False,
        ws="none",
        timeout_graceful_shutdown=SHUTDOWN_S,
    )
    return uvicorn.Server(config), books


@contextmanager
def in_thread(directory: Path, port: int, keys: Keys) -> Iterator[str]:
    """Serves until the block ends; gives its address."""
    server, books = make_server(directory, port, keys)
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    while not server.started:
        if not thread.is_alive():
            raise RuntimeError("the reference partner did not start")
        time.sleep(0.005)
    try:
        yield f"http://127.0.0.1:{port}"
    finally:
        server.should_exit = True
        thread.join(10)
        books.close()
