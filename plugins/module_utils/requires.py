# Copyright (c) 2026, ferry.vmware contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Guarded imports of third-party libraries: a missing one is named with the command that installs it."""

from __future__ import annotations

from typing import Any

from .disk.optional import need, version_of

__all__ = ["need", "openstack", "pyvmomi", "requests", "version_of"]


def pyvmomi() -> tuple[Any, Any, Any]:
    """The modules C(vim), C(vmodl) and C(SoapAdapter) of pyVmomi 8.0.3 or later."""
    top = need("pyVmomi", package="pyvmomi", minimum="8.0.3")
    # vim and vmodl are lazy attributes: importing "pyVmomi.vim" would put an empty namespace package in its place
    return top.vim, top.vmodl, top.SoapAdapter


def requests() -> Any:
    """requests 2.28 or later."""
    return need("requests", minimum="2.28")


def openstack() -> Any:
    """openstacksdk 1.0 or later."""
    return need("openstack", package="openstacksdk", minimum="1.0")
