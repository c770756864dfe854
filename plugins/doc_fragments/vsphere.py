# Copyright (c) 2026, ferry.vmware contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations


class ModuleDocFragment:
    """The connection options of everything that talks to vSphere; the twin spec is module_utils/vsphere/argspec.py."""

    DOCUMENTATION = r"""
options:
  hostname:
    description:
      - Name or address of the vCenter (or of a single ESXi host).
      - If not given, the environment variable E(VMWARE_HOST) is used.
    type: str
  username:
    description:
      - User name to log in with, for example V(administrator@vsphere.local).
      - If not given, the environment variable E(VMWARE_USER) is used.
    type: str
  password:
    description:
      - Password of O(username).
      - If not given, the environment variable E(VMWARE_PASSWORD) is used.
    type: str
  port:
    description:
      - TCP port of the vSphere API.
      - If not given, the environment variable E(VMWARE_PORT) is used.
    type: int
    default: 443
  validate_certs:
    description:
      - Whether the server's certificate has to be trusted and to carry the name in O(hostname).
      - Where vCenter has a certificate of its own CA, give that CA in O(ca_path) rather than turning this off.
      - If not given, the environment variable E(VMWARE_VALIDATE_CERTS) is used.
    type: bool
    default: true
  ca_path:
    description:
      - A PEM file, or a folder of them made with C(openssl rehash), with the CA certificates to trust.
      - Without it, those of the operating system are trusted.
      - A vCenter offers its own CA for download at C(https://VCENTER/certs/download.zip).
      - If not given, the environment variable E(VMWARE_CA_PATH) is used.
    type: path
requirements:
  - pyvmomi >= 8.0.3
"""

    # the same for the inventory plugin, which reads its environment by itself
    PLUGIN = r"""
options:
  hostname:
    description:
      - Name or address of the vCenter (or of a single ESXi host). May be a Jinja template.
    type: str
    required: true
    env:
      - name: VMWARE_HOST
  username:
    description:
      - User name to log in with, for example V(administrator@vsphere.local). May be a Jinja template.
    type: str
    required: true
    env:
      - name: VMWARE_USER
  password:
    description:
      - Password of O(username). May be a Jinja template, for example a lookup into a vault.
    type: str
    required: true
    env:
      - name: VMWARE_PASSWORD
  port:
    description:
      - TCP port of the vSphere API.
    type: int
    default: 443
    env:
      - name: VMWARE_PORT
  validate_certs:
    description:
      - Whether the server's certificate has to be trusted and to carry the name in O(hostname).
      - Where vCenter has a certificate of its own CA, give that CA in O(ca_path) rather than turning this off.
    type: bool
    default: true
    env:
      - name: VMWARE_VALIDATE_CERTS
  ca_path:
    description:
      - A PEM file, or a folder of them made with C(openssl rehash), with the CA certificates to trust.
      - Without it, those of the operating system are trusted.
    type: path
    env:
      - name: VMWARE_CA_PATH
requirements:
  - pyvmomi >= 8.0.3
"""
