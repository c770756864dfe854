# Copyright (c) 2026, ferry.vmware contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Sites for the tests of placement: small ones by hand, and random ones."""

from __future__ import annotations

import random
from dataclasses import replace
from typing import Any

from ansible_collections.ferry.vmware.plugins.module_utils.vsphere.constraints import Rule
from ansible_collections.ferry.vmware.plugins.module_utils.vsphere.site_model import Cluster, Datastore, Host, Site, Vm

GIB = 1 << 30


def site(
    hosts: dict[str, int],
    vms: dict[str, tuple[str, int]],
    *,
    stores: dict[str, tuple[str, ...]] | None = None,
    **more: dict[str, Any],
) -> Site:
    """C(hosts): memory in MiB by name; C(vms): host and memory of running VMs; C(stores): hosts by datastore (default: one, shared);
    C(more): fields of a host, VM or datastore by its name."""
    shared = stores or {"shared": tuple(hosts)}
    found_hosts = {
        h: Host(
            moref=h,
            name=h,
            cluster="c0",
            cluster_name="C0",
            datacenter="DC",
            cores=64,
            threads=64,
            cpu_mhz_total=100_000,
            memory_mb_total=memory,
            datastores=frozenset(d for d, names in shared.items() if h in names),
            networks=frozenset(("net",)),
            cpu_model="Intel(R) Xeon(R) Gold 6148",
        )
        for h, memory in hosts.items()
    }
    found_stores = {
        d: Datastore(d, d, "VMFS", 1000 * GIB, 900 * GIB, True, "normal", frozenset(names), len(names) == 1, "DC")
        for d, names in shared.items()
    }
    found_vms = {}
    for name, (host, memory) in vms.items():
        store = next(d for d, names in shared.items() if host in names)
        found_vms[name] = Vm(
            moref=name,
            name=name,
            uuid=f"uuid-{name}",
            host=host,
            power="on",
            memory_mb=memory,
            datastores=frozenset((store,)),
            disks_bytes={store: GIB},
            networks=frozenset(("net",)),
            datacenter="DC",
        )
    for name, fields in more.items():
        for things in (found_hosts, found_vms, found_stores):
            if name in things:
                things[name] = replace(things[name], **fields)  # type: ignore[index]  # one of three dicts of different dataclasses
    return Site(found_hosts, found_stores, found_vms, {"c0": Cluster("C0", drs=True)}, {"net": "VM Network"})


def rule(kind: str, *vms: str, hosts: tuple[str, ...] = (), required: bool = True, name: str = "") -> Rule:
    """A constraint that came from the inventory."""
    return Rule(kind, name or f"{kind} {' '.join(vms)}", frozenset(vms), frozenset(hosts), required)


def random_site(seed: int) -> tuple[Site, list[Rule], str]:
    """A tight little site with constraints that hold as things are, and the host to drain."""
    dice = random.Random(seed)
    hosts = {f"h{i}": dice.choice((4, 6, 8)) for i in range(dice.choice((3, 3, 4)))}
    vms: dict[str, tuple[str, int]] = {}
    left = dict(hosts)
    for i in range(dice.randint(4, 6)):
        size = dice.randint(1, 3)
        fitting = [h for h, m in left.items() if m >= size]
        if fitting:
            host = dice.choice(fitting)
            left[host] -= size
            vms[f"v{i}"] = (host, size)
    names = sorted(vms)
    rules: list[Rule] = []
    for _number in range(dice.randint(0, 3)):
        kind = dice.choice(("apart", "together", "pin", "hold"))
        some = dice.sample(names, k=min(len(names), 2))
        where = {vms[v][0] for v in some}
        if kind == "apart" and len(where) == len(some):
            rules.append(rule("apart", *some))
        elif kind == "together" and len(where) == 1:
            rules.append(rule("together", *some))
        elif kind == "pin":
            rules.append(rule("pin", some[0], hosts=tuple({vms[some[0]][0], dice.choice(sorted(hosts))})))
        elif kind == "hold":
            rules.append(rule("hold", some[0]))
    return site(hosts, vms), rules, dice.choice(sorted({h for h, _size in vms.values()}))
