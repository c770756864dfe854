# Copyright (c) 2026, ferry.vmware contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Sockets and cores: how a VM's processors are arranged, and who says it in OpenStack. Pure.

Without a word Nova makes each processor a socket, which licences and some guests mind. A flavor may say it in its extra specs,
and an image (or the volume that is booted) in its properties; where both do, the flavor limits the image, and Nova refuses the
server. So the image says it only where the flavor is silent. Source: Nova's "CPU topologies", nova/virt/hardware.py
(C(get_best_cpu_topology)).
"""

from __future__ import annotations

from typing import Any, Mapping

SPECS = ("hw:cpu_sockets", "hw:cpu_cores", "hw:cpu_threads", "hw:cpu_max_sockets", "hw:cpu_max_cores", "hw:cpu_max_threads")
PROPERTIES = ("hw_cpu_sockets", "hw_cpu_cores", "hw_cpu_threads")


def of_vm(vm: Mapping[str, Any]) -> tuple[int, int] | None:
    """(sockets, cores of each); None where the facts do not say it, or each processor is a socket."""
    cpus, cores = int(vm.get("cpus") or 1), int(vm.get("cores_per_socket") or 1)
    return (max(cpus // cores, 1), cores) if 1 < cores <= cpus else None


def _number(specs: Mapping[str, Any], key: str) -> int | None:
    text = str(specs.get(key) or "")
    return int(text) if text.isdigit() and 0 < int(text) < 4096 else None


def told(specs: Mapping[str, Any] | None) -> bool:
    """Whether the flavor's extra specs arrange the processors."""
    return any(key in (specs or {}) for key in SPECS)


def suits(specs: Mapping[str, Any] | None, vm: Mapping[str, Any]) -> bool:
    """Whether the extra specs give the VM's arrangement, or leave it to the image."""
    if not told(specs):
        return True
    given = specs or {}
    sockets, cores = of_vm(vm) or (int(vm.get("cpus") or 1), 1)
    return all(
        (_number(given, f"hw:cpu_{name}") or value) == value and (_number(given, f"hw:cpu_max_{name}") or value) >= value
        for name, value in (("sockets", sockets), ("cores", cores), ("threads", 1))
    )


def properties(vm: Mapping[str, Any], vcpus: int, specs: Mapping[str, Any] | None) -> tuple[dict[str, str], list[str]]:
    """(image properties, warnings) for a server with C(vcpus) processors.

    A larger flavor keeps the VM's number of sockets where its processors divide by it: a guest may be licensed for so many.
    """
    wanted = of_vm(vm)
    if told(specs):
        if suits(specs, vm):
            return {}, []
        shown = ", ".join(f"{k}={v}" for k, v in sorted((specs or {}).items()) if k in SPECS)
        have = wanted or (int(vm.get("cpus") or 1), 1)
        return {}, [f"its {have[0]} sockets of {have[1]} cores become what the flavor says ({shown})"]
    if wanted is None:
        return {}, []
    sockets, cores = wanted
    if vcpus % sockets:
        return {}, [f"its {sockets} sockets of {cores} cores become {vcpus} sockets: the flavor's processors do not divide by {sockets}"]
    return {"hw_cpu_sockets": str(sockets), "hw_cpu_cores": str(vcpus // sockets), "hw_cpu_threads": "1"}, []
