"""stripe-mock, Stripe's own: it knows no state, and checks every parameter of a request.

It is older than the pinned API version, so what is newer is named in `NEWER` and taken out before.
"""

import os
import re
import shutil
import subprocess
import tempfile
from collections.abc import Iterable
from pathlib import Path
from typing import Final
from urllib.parse import parse_qsl, urlencode

import httpx
import pytest

from deploy.embedded.child import ChildProcess, EngineError
from deploy.embedded.ports import free_port
from tests.stripe.running import Asked

VERSION: Final = "v0.197.0"
ROOT: Final = Path(__file__).resolve().parents[2]
BINARIES: Final = ROOT / ".runtime" / "stripe-mock" / VERSION
GO_DIRECTORY: Final = "/usr/local/go/bin"
BUILD_S: Final = 240
START_S: Final = 60.0
KEY: Final = "sk_" + "test_123"
NEWER: Final[frozenset[tuple[str, str]]] = frozenset()
"""Path and parameter of what the pinned version has and this stripe-mock does not know."""


class StripeMock:
    """A running stripe-mock at `url`."""

    def __init__(self, output: Path) -> None:
        self._port = free_port()
        self.url = f"http://127.0.0.1:{self._port}"
        self._child = ChildProcess("stripe-mock", output, die_with_parent=True)

    def start(self) -> None:
        command = [str(built()), "-http-port", str(self._port)]
        self._child.start(command, os.environ)
        self._child.wait_until(self._answers, START_S)

    def stop(self) -> None:
        self._child.kill()

    def refusals(self, requests: Iterable[Asked]) -> list[str]:
        """What it refuses of these, and why; each shape of a request is tried once."""
        asked = list(dict.fromkeys(_without_newer(request) for request in requests))
        headers = {"Authorization": f"Bearer {KEY}"}
        with httpx.Client(base_url=self.url, headers=headers, trust_env=False) as client:
            return [why for request in asked if (why := _refusal(client, request))]

    def _answers(self) -> bool:
        try:
            answer = httpx.get(f"{self.url}/v1/account", auth=(KEY, ""), trust_env=False)
        except httpx.HTTPError:
            return False
        return answer.is_success


def built() -> Path:
    """Its binary, made with Go where it is not there yet. Skips the test where that cannot be."""
    binary = BINARIES / "stripe-mock"
    if binary.exists():
        return binary
    go = shutil.which("go") or shutil.which("go", path=GO_DIRECTORY)
    if go is None:
        pytest.skip("Go is not installed, with which stripe-mock is built")
    BINARIES.mkdir(parents=True, exist_ok=True)
    # Another process of the tests may build it as well: whole, or not there.
    with tempfile.TemporaryDirectory(dir=BINARIES) as fresh:
        outcome = subprocess.run(
            [go, "install", f"github.com/stripe/stripe-mock@{VERSION}"],
            env={**os.environ, "GOBIN": fresh},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=BUILD_S,
            check=False,
        )
        if outcome.returncode:
            pytest.skip(f"stripe-mock could not be built: {outcome.stderr[-300:]}")
        (Path(fresh) / "stripe-mock").replace(binary)
    return binary


def started(output: Path) -> StripeMock:
    mock = StripeMock(output)
    try:
        mock.start()
    except EngineError as error:
        pytest.fail(str(error))
    return mock


def _without_newer(request: Asked) -> Asked:
    names = [name for path, name in NEWER if re.fullmatch(path, request.path)]

    def kept(form: str) -> str:
        pairs = parse_qsl(form, keep_blank_values=True)
        return urlencode([pair for pair in pairs if not pair[0].startswith(tuple(names))])

    return request._replace(query=kept(request.query), body=kept(request.body))


def _refusal(client: httpx.Client, request: Asked) -> str:
    is_post = request.method == "POST"
    answer = client.request(
        request.method,
        f"{request.path}?{request.query}" if request.query else request.path,
        content=request.body or None,
        headers={"Content-Type": "application/x-www-form-urlencoded"} if is_post else {},
    )
    return "" if answer.is_success else f"{request.method} {request.path}: {answer.text}"
