# Copyright (c) 2026, ferry.vmware contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The connection options of every vCloud Director module; their documentation is plugins/doc_fragments/vcloud.py."""

from __future__ import annotations

from typing import Any, Callable

#: Environment variable of each option, named as the vendor's own tools name them.
ENVIRONMENT = {
    "hostname": "VCD_HOST",
    "username": "VCD_USER",
    "password": "VCD_PASSWORD",
    "port": "VCD_PORT",
    "validate_certs": "VCD_VALIDATE_CERTS",
    "ca_path": "VCD_CA_PATH",
    "auth_org": "VCD_ORG",
    "token": "VCD_TOKEN",
}


def connection_spec(env_fallback: Callable[..., Any], **more: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """The argument spec of the connection options.

    :param env_fallback: ansible.module_utils.basic.env_fallback, handed in because this layer does not know Ansible.
    :param more: the module's own options.
    """
    spec: dict[str, dict[str, Any]] = {
        "hostname": {"type": "str"},
        "username": {"type": "str"},
        "password": {"type": "str", "no_log": True},
        "port": {"type": "int", "default": 443},
        "validate_certs": {"type": "bool", "default": True},
        "ca_path": {"type": "path"},
        # the name of an organization is no secret
        "auth_org": {"type": "str", "no_log": False},
        "token": {"type": "str", "no_log": True},
    }
    for name, option in spec.items():
        option["fallback"] = (env_fallback, [ENVIRONMENT[name]])
    spec["api_version"] = {"type": "str"}
    spec.update(more)
    return spec
