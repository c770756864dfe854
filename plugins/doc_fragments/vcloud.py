# Copyright (c) 2026, ferry.vmware contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations


class ModuleDocFragment:
    """The connection options of everything that talks to vCloud Director; the twin spec is module_utils/vcloud/argspec.py."""

    DOCUMENTATION = r"""
options:
  hostname:
    description:
      - Name or address of vCloud Director, without C(https://).
      - No request ever goes to another place, whatever host the links in its answers name.
      - If not given, the environment variable E(VCD_HOST) is used.
    type: str
  username:
    description:
      - User name to log in with, for example V(administrator). It may carry the organization, V(administrator@system).
      - If not given, the environment variable E(VCD_USER) is used.
    type: str
  password:
    description:
      - Password of O(username).
      - If not given, the environment variable E(VCD_PASSWORD) is used.
    type: str
  port:
    description:
      - TCP port of the API.
      - If not given, the environment variable E(VCD_PORT) is used.
    type: int
    default: 443
  validate_certs:
    description:
      - Whether the server's certificate has to be trusted and to carry the name in O(hostname).
      - Where it is signed by a CA of your own, give that CA in O(ca_path) rather than turning this off.
      - If not given, the environment variable E(VCD_VALIDATE_CERTS) is used.
    type: bool
    default: true
  ca_path:
    description:
      - A PEM file, or a folder of them made with C(openssl rehash), with the CA certificates to trust.
      - Without it, those of the operating system are trusted.
      - If not given, the environment variable E(VCD_CA_PATH) is used.
    type: path
  auth_org:
    description:
      - The organization to log in to. Only users of V(System) are system administrators, which this collection needs.
      - If not given, the environment variable E(VCD_ORG) is used; without that, what O(username) carries, else V(System).
    type: str
  token:
    description:
      - The token of a session that is there already, instead of O(username) and O(password). That session is not logged out.
      - If not given, the environment variable E(VCD_TOKEN) is used.
    type: str
  api_version:
    description:
      - The API version to speak, for example V(36.0). It has to be one that the server lists.
      - Without it, the highest that both sides know is taken.
    type: str
requirements:
  - requests >= 2.28
"""

    # the same for the inventory plugin, which reads its environment by itself
    PLUGIN = r"""
options:
  hostname:
    description:
      - Name or address of vCloud Director, without C(https://). May be a Jinja template.
    type: str
    required: true
    env:
      - name: VCD_HOST
  username:
    description:
      - User name to log in with, for example V(administrator). It may carry the organization, V(administrator@system). May be a
        Jinja template.
    type: str
    env:
      - name: VCD_USER
  password:
    description:
      - Password of O(username). May be a Jinja template, for example a lookup into a vault.
    type: str
    env:
      - name: VCD_PASSWORD
  port:
    description:
      - TCP port of the API.
    type: int
    default: 443
    env:
      - name: VCD_PORT
  validate_certs:
    description:
      - Whether the server's certificate has to be trusted and to carry the name in O(hostname).
      - Where it is signed by a CA of your own, give that CA in O(ca_path) rather than turning this off.
    type: bool
    default: true
    env:
      - name: VCD_VALIDATE_CERTS
  ca_path:
    description:
      - A PEM file, or a folder of them made with C(openssl rehash), with the CA certificates to trust.
      - Without it, those of the operating system are trusted.
    type: path
    env:
      - name: VCD_CA_PATH
  auth_org:
    description:
      - The organization to log in to. Only users of V(System) are system administrators, which the inventory needs.
      - Without it, what O(username) carries, else V(System).
    type: str
    env:
      - name: VCD_ORG
  token:
    description:
      - The token of a session that is there already, instead of O(username) and O(password). That session is not logged out.
        May be a Jinja template.
    type: str
    env:
      - name: VCD_TOKEN
  api_version:
    description:
      - The API version to speak, for example V(36.0). It has to be one that the server lists.
      - Without it, the highest that both sides know is taken.
    type: str
requirements:
  - requests >= 2.28
"""
