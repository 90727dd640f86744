"""HTTP to addresses that somebody else chose, without being turned inwards.

A name is resolved by us, at the moment of each connection, and the connection goes to the very
address that was checked: a name that pointed outwards when it was configured and points inwards now
leads nowhere. Only public addresses are allowed, and networks that the configuration names.
No redirects, no proxies from the environment, no compressed bodies; answers are bounded in size and
time.
"""

import asyncio
import ipaddress
import socket
from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network
from typing import Any, Final

import httpcore
import httpx

Address = IPv4Address | IPv6Address
Network = IPv4Network | IPv6Network
Resolve = Callable[[str, int], Awaitable[Sequence[str]]]

ANSWER_BYTES_MAX: Final = 1 << 20
ADDRESSES_TRIED_MAX: Final = 3
CONNECTIONS_MAX: Final = 16
GLOBAL_UNICAST: Final = IPv6Network("2000::/3")
"""Of IPv6 only this is public; documentation, tunnels and the like in it are excepted below."""
SIX_TO_FOUR: Final = IPv6Network("2002::/16")
"""Carries an IPv4 address, which may be any. Teredo's (2001::/32) is not global by itself."""


class ForbiddenAddress(httpcore.ConnectError):
    """The name leads to an address that nothing of ours may be sent to."""


class BadAnswer(Exception):
    """An answer that is too large or compressed."""


@dataclass(frozen=True, slots=True)
class Answer:
    status: int
    headers: httpx.Headers
    body: bytes


def is_public(address: Address) -> bool:
    """Whether the address is one of the public internet, for a connection."""
    if isinstance(address, IPv6Address):
        if address.ipv4_mapped is not None:
            return is_public(address.ipv4_mapped)
        if address not in GLOBAL_UNICAST or address in SIX_TO_FOUR:
            return False
    return address.is_global and not address.is_multicast


def may_connect(text: str, allowed: Iterable[Network]) -> bool:
    """Whether a connection to this address may be made; an unreadable one may not."""
    try:
        # A scope (`fe80::1%eth0`) only link-local addresses have.
        address: Address = ipaddress.ip_address(text)
    except ValueError:
        return False
    if isinstance(address, IPv6Address) and address.ipv4_mapped is not None:
        address = address.ipv4_mapped
    return is_public(address) or any(address in network for network in allowed)


async def resolve(host: str, port: int) -> Sequence[str]:
    """Every address of the name, in the system's order."""
    found = await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return list(dict.fromkeys(str(entry[4][0]) for entry in found))


class GuardedBackend(httpcore.AsyncNetworkBackend):
    """Connects to checked addresses only; TLS above it still asks for the host's own name."""

    def __init__(self, allowed: Sequence[Network], resolve_name: Resolve = resolve) -> None:
        self._allowed = allowed
        self._resolve = resolve_name
        self._inner = httpcore.AnyIOBackend()

    async def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,  # noqa: ASYNC109 - as the library calls it
        local_address: str | None = None,
        socket_options: Iterable[Any] | None = None,
    ) -> httpcore.AsyncNetworkStream:
        try:
            addresses = await self._resolve(host, port)
        except OSError as error:
            raise httpcore.ConnectError(f"{host} cannot be resolved: {error}") from error
        for address in addresses:
            if not may_connect(address, self._allowed):
                raise ForbiddenAddress(f"{host} leads to {address}, which is not allowed")
        failure: Exception = httpcore.ConnectError(f"{host} has no address")
        for address in addresses[:ADDRESSES_TRIED_MAX]:
            try:
                return await self._inner.connect_tcp(
                    address, port, timeout, local_address, socket_options
                )
            except (httpcore.ConnectError, httpcore.ConnectTimeout) as error:
                failure = error
        raise failure

    async def connect_unix_socket(self, *_: Any, **__: Any) -> httpcore.AsyncNetworkStream:
        raise ForbiddenAddress("no unix sockets")

    async def sleep(self, seconds: float) -> None:
        await self._inner.sleep(seconds)


class _GuardedTransport(httpx.AsyncHTTPTransport):
    """httpx's own transport over the guarded backend, which httpx has no parameter for."""

    def __init__(self, backend: GuardedBackend) -> None:
        super().__init__(trust_env=False)
        self._pool = httpcore.AsyncConnectionPool(
            ssl_context=httpx.create_ssl_context(trust_env=False),
            max_connections=CONNECTIONS_MAX,
            max_keepalive_connections=CONNECTIONS_MAX,
            # A kept connection was checked when it was made; it is not kept for long.
            keepalive_expiry=5.0,
            network_backend=backend,
        )


class OutwardClient:
    """Asks one host. Raises httpx.HTTPError, TimeoutError or BadAnswer where there is no answer."""

    def __init__(
        self, allowed: Sequence[Network], timeout_s: float, resolve_name: Resolve = resolve
    ) -> None:
        self._timeout_s = timeout_s
        self._client = httpx.AsyncClient(
            transport=_GuardedTransport(GuardedBackend(allowed, resolve_name)),
            follow_redirects=False,
            trust_env=False,
            timeout=timeout_s,
        )

    async def ask(
        self, method: str, url: str, headers: dict[str, str], body: bytes | None = None
    ) -> Answer:
        """One request, and its whole answer within the time and size that are allowed."""
        headers = {"Accept": "application/json", "Accept-Encoding": "identity", **headers}
        async with (
            asyncio.timeout(self._timeout_s),
            self._client.stream(method, url, headers=headers, content=body) as response,
        ):
            if response.headers.get("content-encoding", "identity").lower() != "identity":
                raise BadAnswer("the answer is compressed, though that was not asked for")
            gathered = bytearray()
            async for chunk in response.aiter_raw(65_536):
                gathered += chunk
                if len(gathered) > ANSWER_BYTES_MAX:
                    raise BadAnswer(f"the answer is larger than {ANSWER_BYTES_MAX} bytes")
            return Answer(response.status_code, response.headers, bytes(gathered))

    async def close(self) -> None:
        await self._client.aclose()
