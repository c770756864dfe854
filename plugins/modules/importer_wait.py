#!/usr/bin/python
# Copyright (c) 2026, ferry.vmware contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: importer_wait
short_description: Watch MTV or Harvester's importer until a wave is over
version_added: 1.0.0
author:
  - ferry.vmware contributors (@ferry-vmware)
description:
  - Reads the state of a migration in a Kubernetes cluster again and again, prints a line for each VM and disk when it has changed, and ends
    when the migration does. The lines are those of M(ferry.vmware.vm_disk_copy).
  - Changes nothing. When it is stopped, the importer goes on. A server that is away for a while is asked again.
  - The roles P(ferry.vmware.mtv#role) and P(ferry.vmware.harvester#role) use it.
  - Where C(ferry_report) names a page, the figures go into it too.
requirements:
  - the collection kubernetes.core
  - the Python library kubernetes
options:
  importer:
    description: Who migrates, the Migration Toolkit for Virtualization or Harvester's vm-import-controller.
    type: str
    choices: [mtv, harvester]
    required: true
  namespace:
    description: Where its objects are.
    type: str
    required: true
  name:
    description: With V(mtv) the name of the Migration, with V(harvester) what the imports carry as the label C(ferry.vmware/plan).
    type: str
    required: true
  stops:
    description: States that end the watching too, beside V(succeeded), V(failed) and V(canceled). V(precopied) is one, of a warm migration.
    type: list
    elements: str
    default: []
  parts:
    description:
      - With V(harvester) the parts of the way, in their order. Each has C(reaches) (how many of the importer's states are behind every VM),
        C(within) (seconds) and C(what) (for the error).
    type: list
    elements: dict
    default: []
  interval:
    description: Seconds between two looks.
    type: float
    default: 10
  timeout:
    description: With V(mtv), seconds within which the migration has to end.
    type: float
    default: 172800
  settle:
    description: With V(mtv), seconds for which a condition that blocks has to be there before it is believed.
    type: float
    default: 30
  shutdown_timeout:
    description: With V(harvester), seconds for which the importer may wait for a guest to shut down. Without it, any time.
    type: float
  kubernetes:
    description:
      - The cluster, with the keys C(host), C(api_key), C(kubeconfig), C(context), C(ca_path) and C(validate_certs). What is missing comes
        from the environment (C(K8S_AUTH_HOST) ...) and the kubeconfig.
    type: dict
    default: {}
  hosts:
    description: Inventory names of the VMs by the importer's id or name of them, for the report.
    type: dict
    default: {}
extends_documentation_fragment:
  - ferry.vmware.attributes
attributes:
  check_mode:
    support: full
    details:
      - Looks at nothing in check mode.
  diff_mode:
    support: N/A
    details:
      - It changes nothing.
  idempotency:
    support: full
    details:
      - Always returns C(changed=false).
"""

EXAMPLES = r"""
- name: Watch a migration
  ferry.vmware.importer_wait:
    importer: mtv
    namespace: openshift-mtv
    name: wave1-1
  register: watched
  delegate_to: localhost
"""

RETURN = r"""
state:
  description: How it ended. With V(mtv) V(succeeded), V(failed), V(canceled), V(blocked), V(gone) or one of O(stops), with V(harvester) V(ended).
  returned: success
  type: str
result:
  description: What P(ferry.vmware.mtv_progress#filter) or P(ferry.vmware.harvester_progress#filter) tells of it then.
  returned: success
  type: dict
"""
