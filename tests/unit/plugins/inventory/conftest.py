# Copyright (c) 2026, ferry.vmware contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The fake vCenter of the vSphere layer's tests."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from ansible.plugins.loader import init_plugin_loader
from ansible.utils.collection_loader import AnsibleCollectionConfig

from ..module_utils.vsphere.conftest import authority, params, tls, vcenter

__all__ = ["authority", "params", "tls", "vcenter"]


@pytest.fixture(scope="module", autouse=True)
def collections() -> Iterator[None]:
    """Ansible's own loader of collections, as its programs have it (ansible-test has already seen to that).

    What other tests imported without it is put aside for as long, or that loader would not know its own.
    """
    if AnsibleCollectionConfig.collection_finder is not None:
        yield
        return
    aside = {name: module for name, module in sys.modules.items() if name.split(".")[0] == "ansible_collections"}
    for name in aside:
        del sys.modules[name]
    init_plugin_loader([str(Path(__file__).resolve().parents[7])])
    yield
    AnsibleCollectionConfig.collection_finder._remove()
    for name in [name for name in sys.modules if name.split(".")[0] == "ansible_collections"]:
        del sys.modules[name]
    sys.modules.update(aside)
