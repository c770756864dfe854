# Copyright (c) 2026, ferry.vmware contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Events and states of a vCenter for ansible-rulebook, pushed by vCenter."""

from __future__ import annotations

import asyncio
import importlib
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

DOCUMENTATION = r"""
short_description: Events and states of a vCenter, pushed
description:
  - Hands on events of vCenter's history, and tells when a host is lost or back and when a datastore is filling or relieved.
  - vCenter pushes them (property collector and event history); nothing is polled.
  - Goes on after a restart of vCenter or of itself where it was. The place is kept in a file.
  - Each event has C(kind) (C(event), C(host_lost), C(host_back), C(datastore_filling), C(datastore_relieved)), C(id), C(type), C(time),
    C(message), C(vcenter), and where they apply C(host), C(vm), C(datastore), C(cluster), C(group), C(data).
options:
  hostname:
    description: The vCenter. By default the environment variable E(VMWARE_HOST).
    type: str
  port:
    description: Its port. By default E(VMWARE_PORT), else 443.
    type: int
  username:
    description: By default E(VMWARE_USER).
    type: str
  password:
    description: By default E(VMWARE_PASSWORD).
    type: str
  validate_certs:
    description: Whether its certificate is verified. By default E(VMWARE_VALIDATE_CERTS), else yes.
    type: bool
  ca_path:
    description: PEM file or folder of the CAs to verify it against. By default E(VMWARE_CA_PATH), else those of the system.
    type: str
  events:
    description: Types of events of the history that are handed on, as vCenter's filters have them. C(*) stands for all.
    type: list
    elements: str
  datastore_used:
    description: Percents of a datastore's capacity. When what is used reaches one of them, the datastore is filling.
    type: list
    elements: float
    default: [85]
  hysteresis:
    description: Percent by which a threshold must be undercut before it counts as left.
    type: float
    default: 3
  sweep:
    description:
      - Which states are told at the start. V(new), those that began while nobody listened; V(all), also those that were told before, with
        the same C(id) and C(again) set; V(none).
    type: str
    choices: [new, all, none]
    default: new
  remind:
    description: Seconds after which states that last are told again, with C(again) set. 0 for never.
    type: float
    default: 0
  state_file:
    description: The file with the place. By default one for the vCenter below C(~/.local/state/ferry/events).
    type: str
  wait:
    description: Seconds that one question waits for updates.
    type: int
    default: 20
"""

EXAMPLES = r"""
- name: Hosts and datastores
  hosts: localhost
  sources:
    - ferry.vmware.vcenter:
        hostname: vcenter.example.com
        datastore_used: [80, 90]
        remind: 300
  rules:
    - name: A host is lost
      condition: event.kind == "host_lost"
      action:
        print_event:
"""

_PACKAGE = "ferry_vmware_module_utils"


def _work() -> ModuleType:
    """The work, from module_utils beside this file: ansible-rulebook runs a source as a file of its own, without Ansible's import of
    collections, and another C(ansible_collections) may stand first in the path."""
    folder = Path(__file__).resolve().parents[4] / "plugins" / "module_utils"
    if _PACKAGE not in sys.modules:
        package = ModuleType(_PACKAGE)
        package.__path__ = [str(folder)]
        sys.modules[_PACKAGE] = package
    return importlib.import_module(f"{_PACKAGE}.vsphere.event_feed")


async def main(queue: asyncio.Queue[dict[str, Any]], args: dict[str, Any]) -> None:
    """Entry point of ansible-rulebook."""
    work = _work()
    options, path = work.options_of(args)
    await work.feed(queue.put, options, path)
