"""scim2-tester, whole."""

import httpx
from scim2_tester import Status, check_server

from tests.api.scim_client import HttpxScimClient
from tests.api.serving import serving
from tests.conftest import MakeSettings


def test_scim2_tester_passes_whole(make_settings: MakeSettings) -> None:
    with serving(make_settings()) as served:
        headers = {"Authorization": f"Bearer {served.key('scim', 'org_a')}"}
        with httpx.Client(base_url=f"{served.url}/scim/v2/", headers=headers, timeout=30) as http:
            results = check_server(HttpxScimClient(http))
    failed = [
        f"{result.status.name} {result.title} {result.resource_type}: {result.reason}"
        for result in results
        if result.status not in (Status.SUCCESS, Status.COMPLIANT)
    ]
    assert failed == [], "\n".join(failed)
    assert len(results) > 100
