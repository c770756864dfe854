# Copyright (c) 2026, ferry.vmware contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Connection options for OpenStack; their twin is module_utils/openstack_cloud/argspec.py."""

from __future__ import annotations


class ModuleDocFragment:
    DOCUMENTATION = r"""
options:
  cloud:
    description:
      - Name of a cloud in C(clouds.yaml), or a dictionary with a whole cloud configuration as it would stand there.
      - Not needed where O(auth) or the environment variables C(OS_*) say where to log in.
    type: raw
  auth:
    description:
      - What the authentication plugin needs, for the default V(password) for example C(auth_url), C(username), C(password),
        C(project_name), C(user_domain_name), C(project_domain_name).
    type: dict
  auth_type:
    description:
      - Name of the authentication plugin, where it is not V(password).
    type: str
  region_name:
    description:
      - Name of the region.
    type: str
  interface:
    description:
      - Which endpoints of the service catalog are used.
    type: str
    choices: [admin, internal, public]
    default: public
    aliases: [endpoint_type]
  ca_cert:
    description:
      - Path of a file with the certificate authorities that are trusted.
    type: path
    aliases: [cacert]
  validate_certs:
    description:
      - Whether the servers' certificates are verified. Absent, what C(clouds.yaml) says holds; without a word there, they are.
    type: bool
requirements:
  - openstacksdk >= 1.0
notes:
  - The options mean what they mean in the modules of the collection openstack.cloud.
"""
