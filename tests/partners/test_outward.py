"""A request to a partner is never turned inwards, and its answer is bounded."""

import asyncio
import ipaddress
import ssl
import subprocess
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import httpx
import pytest

from api.payments.partners.outward import (
    ANSWER_BYTES_MAX,
    BadAnswer,
    ForbiddenAddress,
    OutwardClient,
    may_connect,
)

LOOPBACK = [ipaddress.ip_network("127.0.0.1/32")]


@pytest.mark.parametrize("address", ["8.8.8.8", "1.1.1.1", "2606:4700::1111", "::ffff:8.8.8.8"])
def test_public_addresses_may_be_asked(address: str) -> None:
    assert may_connect(address, [])


@pytest.mark.parametrize(
    "address",
    [
        "127.0.0.1",
        "127.255.255.254",
        "0.0.0.0",
        "10.0.0.1",
        "172.16.0.1",
        "172.31.255.255",
        "192.168.1.1",
        "100.64.0.1",
        "169.254.169.254",
        "169.254.170.2",
        "192.0.0.1",
        "192.0.2.1",
        "198.18.0.1",
        "198.51.100.1",
        "203.0.113.1",
        "224.0.0.1",
        "240.0.0.1",
        "255.255.255.255",
        "::",
        "::1",
        "::127.0.0.1",
        "::ffff:127.0.0.1",
        "::ffff:10.0.0.1",
        "::ffff:169.254.169.254",
        "64:ff9b::a9fe:a9fe",
        "64:ff9b:1::a9fe:a9fe",
        "100::1",
        "2001::1",
        "2001:db8::1",
        "2002:7f00:1::",
        "fc00::1",
        "fd00:ec2::254",
        "fe80::1",
        "fe80::1%eth0",
        "fec0::1",
        "ff02::1",
        "",
        "2130706433",
        "0x7f.1",
        "localhost",
    ],
)
def test_everything_else_may_not(address: str) -> None:
    assert not may_connect(address, [])


def test_a_network_that_is_named_may_be_asked_and_its_neighbour_not() -> None:
    allowed = [ipaddress.ip_network("10.1.0.0/16"), ipaddress.ip_network("fd00::/8")]
    assert may_connect("10.1.2.3", allowed)
    assert may_connect("::ffff:10.1.2.3", allowed)
    assert may_connect("fd00::1", allowed)
    assert not may_connect("10.2.0.1", allowed)
    assert not may_connect("169.254.169.254", allowed)


class _Handler(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.server.seen.append((self.path, self.headers.get("host")))  # type: ignore[attr-defined]
        body, headers = b"{}", {}
        status = 200
        if self.path == "/redirect":
            status, headers = 302, {"Location": "/secret"}
        elif self.path == "/large":
            body = b"x" * (ANSWER_BYTES_MAX + 1)
        elif self.path == "/packed":
            headers = {"Content-Encoding": "gzip"}
        elif self.path == "/slow":
            self.server.released.wait(20)  # type: ignore[attr-defined]
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        try:
            self.wfile.write(body)
        except OSError:
            return

    def log_message(self, *_: object) -> None:
        return


@contextmanager
def _server() -> Iterator[ThreadingHTTPServer]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Handler)
    server.seen = []  # type: ignore[attr-defined]
    server.released = threading.Event()  # type: ignore[attr-defined]
    thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
    thread.start()
    try:
        yield server
    finally:
        server.released.set()  # type: ignore[attr-defined]
        server.shutdown()
        server.server_close()
        thread.join(10)


async def _ask(port: int, path: str, timeout_s: float = 10.0) -> int:
    client = OutwardClient(LOOPBACK, timeout_s)
    try:
        return (await client.ask("GET", f"http://127.0.0.1:{port}{path}", {})).status
    finally:
        await client.close()


async def test_the_address_that_was_checked_is_the_one_that_is_asked() -> None:
    """A name that leads inwards by the time of the connection, whatever it was before."""
    answers: list[Sequence[str]] = [["127.0.0.1"], ["127.0.0.2"], ["127.0.0.1", "10.0.0.1"]]

    async def resolve(_host: str, _port: int) -> Sequence[str]:
        return answers.pop(0)

    with _server() as server:
        port = server.server_address[1]
        client = OutwardClient(LOOPBACK, 10.0, resolve)
        url = f"http://partner.example:{port}"
        assert (await client.ask("GET", f"{url}/first", {"connection": "close"})).status == 200
        for path in ("/rebound", "/mixed"):
            with pytest.raises(httpx.ConnectError) as refused:
                await client.ask("GET", url + path, {})
            assert isinstance(refused.value.__cause__, ForbiddenAddress)
        await client.close()
        assert server.seen == [("/first", f"partner.example:{port}")]  # type: ignore[attr-defined]


async def test_a_name_without_addresses_is_an_error_of_connection() -> None:
    async def resolve(_host: str, _port: int) -> Sequence[str]:
        return []

    client = OutwardClient(LOOPBACK, 10.0, resolve)
    with pytest.raises(httpx.ConnectError):
        await client.ask("GET", "https://partner.example/", {})
    await client.close()


async def test_redirects_are_not_followed() -> None:
    with _server() as server:
        assert await _ask(server.server_address[1], "/redirect") == 302
        assert [path for path, _ in server.seen] == ["/redirect"]  # type: ignore[attr-defined]


async def test_proxies_of_the_environment_are_not_used(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    with _server() as server:
        assert await _ask(server.server_address[1], "/") == 200


@pytest.mark.parametrize("path", ["/large", "/packed"])
async def test_an_answer_that_is_too_large_or_packed_is_none(path: str) -> None:
    with _server() as server, pytest.raises(BadAnswer):
        await _ask(server.server_address[1], path)


async def test_an_answer_that_does_not_come_is_given_up() -> None:
    with _server() as server, pytest.raises((TimeoutError, httpx.TimeoutException)):
        await _ask(server.server_address[1], "/slow", timeout_s=0.2)
    assert asyncio.get_running_loop().is_running()


async def test_the_certificate_is_that_of_the_name_though_the_address_is_ours(
    tmp_path: Path,
) -> None:
    """The connection goes to the checked address and still asks for, and believes, only the
    partner's own name."""
    key, certificate = tmp_path / "key.pem", tmp_path / "certificate.pem"
    made = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256"]
    made += ["-nodes", "-days", "1", "-subj", "/CN=partner.example", "-keyout", str(key)]
    made += ["-addext", "subjectAltName=DNS:partner.example", "-out", str(certificate)]
    await asyncio.to_thread(subprocess.run, made, check=True, capture_output=True)
    asked: list[str | None] = []
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    context.sni_callback = lambda _socket, name, _context: asked.append(name)

    async def answer(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.close()

    async def resolve(_host: str, _port: int) -> Sequence[str]:
        return ["127.0.0.1"]

    server = await asyncio.start_server(answer, "127.0.0.1", 0, ssl=context)
    port = server.sockets[0].getsockname()[1]
    client = OutwardClient(LOOPBACK, 10.0, resolve)
    with pytest.raises(httpx.ConnectError, match="CERTIFICATE_VERIFY_FAILED"):
        await client.ask("GET", f"https://partner.example:{port}/", {})
    await client.close()
    server.close()
    assert asked == ["partner.example"]
