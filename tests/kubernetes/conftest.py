# Copyright (c) 2026, ferry.vmware contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.kubernetes import site as sites
from tests.lab.kubernetes import Kubernetes
from tests.lab.vcenter import VCenter


@pytest.fixture(scope="session")
def servers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[VCenter, Kubernetes]]:
    with sites.servers(tmp_path_factory.mktemp("kubernetes")) as found:
        yield found


@pytest.fixture(scope="session")
def sources(servers: tuple[VCenter, Kubernetes]) -> dict[str, Any]:
    return sites.sources(servers[0])


@pytest.fixture
def site(
    servers: tuple[VCenter, Kubernetes], sources: dict[str, Any], tmp_path: Path, request: pytest.FixtureRequest
) -> Iterator[sites.Site]:
    vcenter, cluster = servers
    api = cluster.api()
    name = re.sub(r"[^a-z0-9]+", "-", request.node.name.removeprefix("test_").lower()).strip("-")[:40].strip("-")
    found = sites.Site(vcenter, cluster, api, tmp_path, name, sources=sources)
    found.clear()
    yield found
    api.close()


@pytest.fixture
def wave(site: sites.Site) -> sites.Site:
    """All VMs as a wave for MTV, in a namespace of the test's own that is not there yet."""
    site.write(
        *sites.VMS,
        ferry_mtv_namespace=site.namespace,
        ferry_network_map={"VM Network": "pod", "backend": "net/backend"},
        ferry_storage_map={"*": "ceph"},
        ferry_vddk_image="registry.example/team/vddk:8.0.3",
        ferry_mtv_reach=False,
        ferry_mtv_interval=1,
        ferry_mtv_settle=3,
        ferry_mtv_ready_timeout=30,
        ferry_mtv_timeout=120,
    )
    return site
