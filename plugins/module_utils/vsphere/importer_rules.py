# Copyright (c) 2026, ferry.vmware contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What stands in the way of a wave that Forklift (MTV) or Harvester's importer is to move, beside what the source's own check finds. Pure.

The rules of Forklift: pkg/controller/plan/validation.go. Those of Harvester's importer: pkg/source/helper.go (processors, memory),
pkg/source/vmware/client.go (names, cards), v1.8.1.
"""

from __future__ import annotations

from typing import Any, Iterator, Mapping, Sequence

from ..concerns import Concern, ordered
from ..kubernetes_names import collisions, is_label, to_label
from .importer_catalogue import HARVESTER, OPENSHIFT, own, translated
from .precheck import Checked
from .precheck_options import Options

POD, IGNORED = "pod", "ignored"


def judged(
    target: str, checked: Sequence[Checked], of_wave: Sequence[Concern], options: Options, own_options: Sequence[Options]
) -> tuple[list[list[Concern]], list[Concern]]:
    """The concerns of each entry, and of the wave, as C(target) means them, with the target's own.

    :param checked: what precheck.check() gave.
    :param own_options: the options of each entry.
    """
    of_vms = []
    for entry, mine in zip(checked, own_options, strict=True):
        found = [c for c in (translated(concern, target) for concern in entry.concerns) if c]
        if entry.facts is not None and not entry.twice:
            found += _rules(target, entry.facts, mine)
        of_vms.append(ordered(found))
    wave = [c for c in (translated(concern, target) for concern in of_wave) if c]
    known = [(entry.facts, mine) for entry, mine in zip(checked, own_options, strict=True) if entry.facts is not None and not entry.twice]
    pairs = [(str(facts["name"]), name_of(target, facts, mine)) for facts, mine in known]
    wave += [own_duplicate(said, target) for said in collisions(pairs)]
    warm = [mine for facts, mine in known if mine.warm] or ([options] if options.warm else [])
    if target == HARVESTER and warm:
        wave.append(own("WarmMigrationNotReady", target, "The strategy is warm."))
    if target == OPENSHIFT and any("nbd" not in mine.transports for mine in warm):
        wave.append(own("VDDKInitImageUnavailable", target, "The strategy is warm, and transports does not have nbd (VDDK)."))
    return of_vms, ordered(wave)


def own_duplicate(said: str, target: str) -> Concern:
    """Several VMs that would get one name: Forklift's words for it are those for one VM that is named twice."""
    found = own("TargetNameNotValid", target, f"{said}.", category="critical")
    return Concern("DuplicateVM", found.category, "Duplicate targetName", found.assessment, found.advice)


def name_of(target: str, facts: Mapping[str, Any], options: Options) -> str:
    """The name that the VM gets. Harvester's importer lower-cases it, and knows no other."""
    if target == HARVESTER:
        return str(facts["name"]).lower()
    return options.target_name or to_label(str(facts["name"]))


def _rules(target: str, facts: Mapping[str, Any], options: Options) -> Iterator[Concern]:
    yield from _name(target, facts, options)
    if target == OPENSHIFT:
        yield from _pod_network(facts, options)
    else:
        yield from _harvester(facts, options)


def _name(target: str, facts: Mapping[str, Any], options: Options) -> Iterator[Concern]:
    name, kind = str(facts["name"]), "TargetNameNotValid"
    becomes = name_of(target, facts, options)
    if target == HARVESTER:
        if not is_label(becomes):
            yield own(kind, target, f"{name!r} becomes {becomes!r}, which is no name for Kubernetes: a-z, 0-9 and -, at most 63.")
    elif not becomes:
        yield own(kind, target, f"Nothing of the name {name!r} can be kept in Kubernetes.", category="critical")
    elif options.target_name and not is_label(becomes):
        yield own(kind, target, f"It cannot be called {becomes!r}: a-z, 0-9 and -, at most 63.", category="critical")
    elif not options.target_name and becomes != name:
        yield own(kind, target, f"{name!r} becomes {becomes!r}.")


def _mapped(facts: Mapping[str, Any], options: Options) -> list[tuple[str, Any]]:
    """Each card's label, and what its network is mapped to."""
    maps = options.network_map
    return [(str(nic["label"]), maps.get(nic["network"], maps.get(nic.get("network_moref"), maps.get("*")))) for nic in facts["nics"]]


def _pod_network(facts: Mapping[str, Any], options: Options) -> Iterator[Concern]:
    pods = [label for label, to in _mapped(facts, options) if to == POD]
    if len(pods) > 1:
        yield own("VMMultiplePodNetworkMappings", OPENSHIFT, f"{', '.join(pods)} would all be on the pod network.")
    elif pods:
        yield own("NetMapPreservingIPsOnPodNetwork", OPENSHIFT, f"{pods[0]} comes to the pod network.", device=pods[0])


def _harvester(facts: Mapping[str, Any], options: Options) -> Iterator[Concern]:
    cpus, cores = int(facts["cpus"] or 0), int(facts["cores_per_socket"] or 1)
    if cores > 1:
        said = f"{cpus} vCPUs at {cores} a socket become {cpus * cores}: the importer multiplies both."
        yield own("ferry.harvester.cpus", HARVESTER, said)
    yield own("ferry.harvester.memory", HARVESTER, f"{facts['memory_mb']} MiB become {facts['memory_mb']} MB.")
    if str(facts["guest_id"] or "").lower().startswith("win"):
        yield own("ferry.harvester.drivers", HARVESTER, f"Its guest is {facts['guest_full_name'] or facts['guest_id']}.")
    asked = [options.storage_map.get(d["datastore"], options.storage_map.get("*")) for d in facts["disks"]]
    classes = sorted({str(a.get("storage_class") if isinstance(a, Mapping) else a) for a in asked if a})
    if len(classes) > 1:
        yield own("ferry.harvester.storage", HARVESTER, f"Its disks would have {', '.join(classes)}.")
