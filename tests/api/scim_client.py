"""An engine for scim2-client on httpx (its own needs another HTTP library)."""

from typing import Any, cast

import httpx
from scim2_client import BaseSyncSCIMClient


class HttpxScimClient(BaseSyncSCIMClient):
    def __init__(self, client: httpx.Client, **options: Any) -> None:
        super().__init__(**options)
        self.client = client

    def _stays_under_base_url(self, endpoint: str) -> bool:
        return not endpoint.startswith("http") or endpoint.startswith(str(self.client.base_url))

    def _parse_json(self, response: Any) -> Any:
        return cast(httpx.Response, response).json()

    def request(self, method: str, url: str, **options: Any) -> Any:
        return self.client.request(method, url.lstrip("/"), **options)
