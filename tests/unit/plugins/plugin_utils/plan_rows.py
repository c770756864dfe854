# Copyright (c) 2026, ferry.vmware contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Facts of VMs and what is read beside, as the modules return them, for tests of plans."""

from __future__ import annotations

import datetime
from typing import Any

from ansible_collections.ferry.vmware.plugins.plugin_utils.plan import build
from ansible_collections.ferry.vmware.plugins.plugin_utils.plan.estimate import Terms

GIB = 1 << 30
NOW = datetime.datetime(2026, 11, 21, 20, 0, 0, tzinfo=datetime.timezone(datetime.timedelta(hours=9)))
VCENTER = {"instance": "aaaa-bbbb", "name": "VMware vCenter Server 8.0.3"}


def uuid(n: int) -> str:
    return f"50210a1b-0000-4c6e-9f01-{n:012x}"


def disk(key: int = 2000, gib: int = 40, **more: Any) -> dict[str, Any]:
    return {
        "key": key,
        "label": f"Hard disk {key - 1999}",
        "capacity": gib * GIB,
        "datastore": "ds1",
        "datastore_type": "VMFS",
        "backing": "FlatVer2",
        "chain": ["[ds1] vm/vm.vmdk"],
        "encrypted": False,
        "rdm_mode": None,
        **more,
    }


def facts(n: int = 1, name: str | None = None, **more: Any) -> dict[str, Any]:
    return {
        "name": name or f"vm{n:04}",
        "moref": f"vm-{n}",
        "instance_uuid": uuid(n),
        "power": "on",
        "host": "esx1",
        "snapshots": 0,
        "change_tracking": False,
        "custom_attributes": {},
        "disks": [disk()],
        "nics": [{"key": 4000, "network": "VM Network"}],
        **more,
    }


def entry(vm: dict[str, Any], **more: Any) -> dict[str, Any]:
    return {
        "name": vm["name"],
        "to_copy": [str(d["key"]) for d in vm["disks"]],
        "volumes": [
            {
                "disk": str(d["key"]),
                "label": d["label"],
                "name": f"{vm['name']}-disk",
                "type": "ssd",
                "size_gib": d["capacity"] // GIB,
                "id": None,
                "state": "absent",
                "found": None,
                "attach": {"order": 0, "bus": "virtio", "device": "/dev/vda"},
            }
            for d in vm["disks"]
        ],
        "ports": [{"nic": "4000", "name": "p", "network_id": "net-1", "mac": "00:50:56:00:00:01", "fixed_ips": [], "id": None}],
        "flavor": {"name": "m1.small"},
        "server": {"id": None, "name": vm["name"], "status": "absent", "changes": {"create": True}},
        "errors": [],
        "warnings": [],
        **more,
    }


def given(n: int = 1, terms: Terms | None = None, **more: Any) -> build.Given:
    vm = facts(n, **more)
    return build.Given(vm["name"], vm, entry(vm), terms or Terms())


def usage(wave: list[build.Given], share: float = 0.25) -> dict[str, Any]:
    vms = [
        {
            "moref": g.facts["moref"],
            "disks": [{"key": str(d["key"]), "allocated": int(d["capacity"] * share), "changed": None} for d in g.facts["disks"]],
        }
        for g in wave
    ]
    return {"vms": vms, "vcenter": VCENTER}


def plan_of(*wave: build.Given, forks: int = 5, title: str = "Wave 3", **known: Any) -> dict[str, Any]:
    rows = list(wave)
    return build.build(title, rows, build.Known(**{"usage": usage(rows), **known}), forks=forks, now=NOW)
