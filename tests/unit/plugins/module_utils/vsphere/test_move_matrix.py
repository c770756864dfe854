# Copyright (c) 2026, ferry.vmware contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The table of the guide on moves: every method in every state of host, storage and VM, as the plans have it.

With FERRY_WRITE_DOCS=FILE the table in that file is written anew.
"""

from __future__ import annotations

import os
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest

from ansible_collections.ferry.vmware.plugins.module_utils.vsphere.failover import choose, orphaned
from ansible_collections.ferry.vmware.plugins.module_utils.vsphere.failover_proof import Signs, prove
from ansible_collections.ferry.vmware.plugins.module_utils.vsphere.move_plan import Wish, plan
from ansible_collections.ferry.vmware.plugins.module_utils.vsphere.move_rules import forbids_of
from ansible_collections.ferry.vmware.plugins.module_utils.vsphere.move_subject import Drive
from ansible_collections.ferry.vmware.plugins.module_utils.vsphere.site import Cluster, Host, Site

from .test_move_plan import GIB, NAME, disk, host, nic, site, subject

PAGE = Path("docs/docsite/rst/moving_vms.rst")
BEGIN, END = ".. matrix: begin", ".. matrix: end"
BOTH = frozenset({"ds-1", "ds-3"})
LOCAL = {"disks": (disk(store="ds-2"),), "vmx_path": "[local1] vm/vm.vmx", "vmx_datastore": "ds-2", "datastores": frozenset({"ds-2"}),
         "bytes_on": {"ds-2": 2 * GIB}}  # fmt: skip
DEAD = Signs("esx1", "notResponding", "unknown", None, {"vm-1": (NAME, "disconnected", "poweredOn", "gray")})
ALIVE = Signs("esx1", "connected", "poweredOn", None, {"vm-1": (NAME, "connected", "poweredOn", "green")})


@dataclass(frozen=True)
class State:
    """One row. C(vm), C(target), C(source): what is different from a running VM on shared storage, and from healthy hosts."""

    title: str
    vm: dict[str, Any] = field(default_factory=dict)
    target: dict[str, Any] = field(default_factory=dict)
    source: dict[str, Any] = field(default_factory=dict)
    free: int = 50 * GIB
    signs: Signs = ALIVE
    fenced: bool | None = None
    ha: bool = False
    constraints: tuple[dict[str, Any], ...] = ()

    def site(self) -> Site:
        found = site(host(1, **{"datastores": BOTH | {"ds-2"}, **self.source}), host(2, **{"datastores": BOTH, **self.target}))
        full = {"ds-3": replace(found.datastores["ds-3"], free=self.free)}
        return replace(found, datastores={**found.datastores, **full}, clusters={"domain-c1": Cluster("C0", ha=self.ha)})


AWAY: dict[str, Any] = {"connected": False, "power": "unknown"}
GONE: dict[str, Any] = {"source": AWAY, "vm": {"connected": False}}
STATES = (
    State("runs, shared storage"),
    State("off, shared storage", vm={"power": "off"}),
    State("suspended, shared storage", vm={"power": "suspended"}),
    State("runs, local disk of its host", vm=LOCAL),
    State("off, local disk of its host", vm={**LOCAL, "power": "off"}),
    State("VMware Tools do not run", vm={"tools": False}),
    State("has snapshots", vm={"snapshots": 2}),
    State("linked clone", vm={"linked": ("Hard disk 1",)}),
    State("needs consolidation", vm={"consolidation": True}),
    State("waits for an answer", vm={"question": "msg.hbacommon.outofspace"}),
    State("passthrough device", vm={"passthrough": ("PCI device 0",)}),
    State("CD drive of the host connected", vm={"drives": (Drive("CD/DVD drive 1", "/dev/cdrom", None),)}),
    State("target not connected", target=AWAY),
    State("target in maintenance mode", target={"maintenance": True}),
    State("target without the network", vm={"nics": (nic("DMZ", "network-2"),)}),
    State("target's CPUs of another maker", target={"cpu_model": "AMD EPYC 7763"}),
    State("target with too little memory", target={"memory_mb_total": 2048, "memory_mb_used": 0}),
    State("target without the shared storage", target={"datastores": frozenset({"ds-3"})}),
    State("the other datastore is full", free=0),
    State("to be apart from a VM on the target", constraints=({"kind": "apart", "vms": [NAME, "db"]},)),
    State("its host is dead, fenced", signs=DEAD, fenced=True, **GONE),
    State("its host is dead, nothing said of fencing", signs=DEAD, **GONE),
    State("its host is dead, fencing failed", signs=DEAD, fenced=False, **GONE),
    State("its host is silent, a VM on it has a heartbeat", signs=replace(DEAD, vms={"vm-1": (NAME, "disconnected", "poweredOn", "green")}), **GONE),
    State("its host was disconnected by somebody", signs=replace(DEAD, connection="disconnected"), fenced=True, **GONE),
    State("its host is dead, vSphere HA protects the cluster", signs=DEAD, fenced=True, ha=True, **GONE),
    State("its host is dead, local disk", signs=DEAD, fenced=True, source=AWAY, vm={**LOCAL, "connected": False}),
)  # fmt: skip
METHODS: dict[str, dict[str, Any]] = {
    "hot": {"method": "hot", "host": "esx2"},
    "hot, datastore": {"method": "hot", "host": "esx2", "datastore": "local2"},
    "cold": {"method": "cold", "host": "esx2"},
    "cold, datastore": {"method": "cold", "host": "esx2", "datastore": "local2"},
    "storage": {"method": "storage", "datastore": "local2"},
    "move": {"method": "move", "host": "esx2"},
    "failover": {"method": "failover", "host": "esx2"},
    "auto": {"host": "esx2"},
}


def cell(state: State, options: dict[str, Any]) -> str:
    """yes, the method that auto takes, or the checks that fail."""
    there, vm, wish = state.site(), subject(**state.vm), Wish(**options)
    rules = forbids_of(list(state.constraints))
    if wish.method == "failover":
        bare = orphaned(there, "host-1")
        checks = [*prove(state.signs, there, "host-1", state.fenced), *choose(vm, bare, wish, rules(bare)).checks]
    else:
        found = plan(vm, there, wish, rules(there))
        checks = list(found.checks)
        if all(c.passed for c in checks):
            return found.method if wish.method == "auto" else "yes"
    failed = [c.id for c in checks if not c.passed]
    return "; ".join(failed) or "yes"


def table() -> str:
    lines = [".. list-table::", "   :header-rows: 1", ""]
    for row in [["State", *METHODS], *([s.title, *(cell(s, m) for m in METHODS.values())] for s in STATES)]:
        lines += [f"   {'* -' if i == 0 else '  -'} {text}" for i, text in enumerate(row)]
    return "\n".join(lines)


def written(text: str) -> str:
    """C(text) of the guide with the table as it is now."""
    head, _begin, rest = text.partition(BEGIN)
    _old, _end, tail = rest.partition(END)
    return f"{head}{BEGIN}\n\n{table()}\n\n{END}{tail}"


def test_the_guide_has_the_table_as_the_plans_are() -> None:
    target = os.environ.get("FERRY_WRITE_DOCS")
    if target:
        page = Path(target)
        page.write_text(written(page.read_text(encoding="utf-8")), encoding="utf-8")
        return
    top = Path(__file__).resolve().parents[5]
    text = (top / PAGE).read_text(encoding="utf-8")
    assert written(text) == text


@pytest.mark.parametrize(
    ("title", "method", "wanted"),
    [
        ("runs, shared storage", "auto", "hot"),
        ("off, shared storage", "auto", "cold"),
        ("runs, local disk of its host", "hot", "datastore.access"),
        ("runs, local disk of its host", "auto", "hot"),
        ("passthrough device", "auto", "vm.passthrough"),
        ("CD drive of the host connected", "auto", "move"),
        ("target's CPUs of another maker", "auto", "move"),
        ("the other datastore is full", "storage", "datastore.space"),
        ("its host is dead, fenced", "failover", "yes"),
        ("its host is dead, fencing failed", "failover", "host.fenced"),
        ("its host is dead, local disk", "failover", "datastore.access"),
        ("runs, shared storage", "failover", "host.dead; host.heartbeats"),
    ],
)
def test_some_cells_that_nobody_may_change_unnoticed(title: str, method: str, wanted: str) -> None:
    state = next(s for s in STATES if s.title == title)
    assert cell(state, METHODS[method]) == wanted


def test_hosts_of_the_rows_differ_in_one_thing() -> None:
    plain: Host = STATES[0].site().hosts["host-2"]
    assert plain.connected and not plain.maintenance and plain.datastores == BOTH
