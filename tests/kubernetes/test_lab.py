# Copyright (c) 2026, ferry.vmware contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The lab's API server: that it is the real one, refuses what the kinds do not know, and that the stand-ins walk and fail as asked."""

from __future__ import annotations

import pytest

from tests.kubernetes import site as sites
from tests.kubernetes.site import until
from tests.lab.kubernetes import version
from tests.lab.kubernetes.api import FORKLIFT, SECRET, ApiError, Object
from tests.lab.kubernetes.forklift import PLAN, PROVIDER


def provider(name: str, **spec: object) -> Object:
    body = {"type": "vsphere", "url": "https://vcenter.example/sdk", "secret": {"name": "credentials"}, **spec}
    return {"apiVersion": FORKLIFT, "kind": "Provider", "metadata": {"name": name}, "spec": body}


def conditions(site: sites.Site, name: str) -> dict[str, str]:
    found = site.api.get(PROVIDER, site.namespace, name) or {}
    return {c["type"]: c["category"] for c in found.get("status", {}).get("conditions", [])}


def test_it_is_kubernetes(site: sites.Site) -> None:
    assert site.api.call("GET", "/version")["gitVersion"] == version()
    with pytest.raises(ApiError) as caught:
        site.api.call("GET", "/api/v1/nodes/none")
    assert (caught.value.status, caught.value.reason) == (404, "NotFound")
    site.api.token = "another"
    with pytest.raises(ApiError) as caught:
        site.api.call("GET", "/api/v1/namespaces")
    assert caught.value.status == 401


def test_unknown_fields_and_missing_ones_are_refused(site: sites.Site) -> None:
    sites.namespace(site.api, site.namespace)
    with pytest.raises(ApiError, match="unknown field"):
        site.api.create(PROVIDER, site.namespace, provider("odd", colour="blue"))
    body = provider("poor")
    del body["spec"]["secret"]
    with pytest.raises(ApiError, match="spec.secret: Required"):
        site.api.create(PROVIDER, site.namespace, body)
    # What the facts say of a plan's defaults.
    refs = {"source": {"name": "a"}, "destination": {"name": "b"}}
    spec = {"targetNamespace": "vms", "provider": refs, "map": {"network": {}, "storage": {}}, "vms": []}
    made = site.api.create(PLAN, site.namespace, {"apiVersion": FORKLIFT, "kind": "Plan", "metadata": {"name": "plain"}, "spec": spec})
    defaults = ("preserveStaticIPs", "migrateSharedDisks", "runPreflightInspection", "useCompatibilityMode", "deleteVmOnFailMigration")
    assert [made["spec"][name] for name in defaults] == [True] * 5


def test_a_provider_becomes_ready_or_says_why_not(site: sites.Site) -> None:
    sites.namespace(site.api, site.namespace)
    site.cluster.switch(unreachable_providers=["far"], silent_providers=["mute"])
    for name in ("near", "far", "mute"):
        site.api.create(PROVIDER, site.namespace, provider(name))
    until(lambda: "SecretNotValid" in conditions(site, "near"))
    secret = {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "credentials"}, "stringData": {"user": "a", "password": "b"}}
    site.api.create(SECRET, site.namespace, secret)
    until(lambda: "Ready" in conditions(site, "near"))
    until(lambda: conditions(site, "far").get("ConnectionTestFailed") == "Critical")
    assert conditions(site, "mute") == {}
    site.clear()
    until(lambda: "Ready" in conditions(site, "far") and "Ready" in conditions(site, "mute"))
