# Copyright (c) 2026, ferry.vmware contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Connection options for OpenStack; their twin is doc_fragments/openstack.py."""

from __future__ import annotations

from typing import Any


def connection_spec() -> dict[str, Any]:
    """A fresh argument spec of the connection options, to be extended by a module's own."""
    return {
        "cloud": {"type": "raw"},
        "auth": {"type": "dict", "no_log": True},
        "auth_type": {"type": "str"},
        "region_name": {"type": "str"},
        "interface": {"type": "str", "choices": ["admin", "internal", "public"], "default": "public", "aliases": ["endpoint_type"]},
        "ca_cert": {"type": "path", "aliases": ["cacert"]},
        "validate_certs": {"type": "bool"},
    }


#: How an image is to be that another module than glance_vmdk_upload sends: some of that one's options.
IMAGE: dict[str, Any] = {
    "hypervisor": {"type": "str", "choices": ["kvm", "vmware"], "default": "kvm"},
    "hardware": {"type": "str", "choices": ["source", "virtio"], "default": "source"},
    "properties": {"type": "dict"},
    "visibility": {"type": "str", "choices": ["private", "shared", "community", "public"]},
    "protected": {"type": "bool"},
    "tags": {"type": "list", "elements": "str"},
    "members": {"type": "list", "elements": "str"},
    "stores": {"type": "list", "elements": "str"},
    "min_ram": {"type": "int"},
    "compression_level": {"type": "int"},
}
