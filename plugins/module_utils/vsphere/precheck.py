# Copyright (c) 2026, ferry.vmware contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The source's side of a precheck: all that stands in the way of a wave at vSphere, or is worth knowing, before anything is touched.

Everything is found, not the first; a VM that cannot be found hides no other. The number of calls does not grow with the wave, only
with the pages of two answers.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Mapping, Sequence

from ..concerns import Concern, ordered
from . import precheck_disks, precheck_vm, precheck_wave, privileges
from .client import Session
from .guest import plain
from .precheck_catalogue import found
from .precheck_disks import WhyNoFiles
from .precheck_options import Options
from .precheck_read import Answer, SourceVm, Wave, read
from .precheck_wave import named


@dataclass(frozen=True)
class Checked:
    """One entry of a wave. C(name): the VM's, or what was asked for; C(moref), C(facts): None where it was not found.

    C(facts): as vm_info gives them. C(twice): an entry before this one means the same VM.
    """

    name: str
    moref: str | None
    facts: dict[str, Any] | None
    concerns: list[Concern]
    twice: bool = False


def check(
    session: Session, wanted: Sequence[str], options: Options, own: Sequence[Options], why_no_files: WhyNoFiles
) -> tuple[list[Checked], list[Concern]]:
    """Check the wave C(wanted): names, paths, uuids or MoRefs. Changes nothing.

    :param own: the options of each of them, in the order of C(wanted).
    :param why_no_files: transfer.ways.why_no_files.
    :returns: one entry for each of C(wanted), in its order; and what is of the whole wave.
    :raises ServerError: vCenter cannot be read.
    """
    wave = read(session, wanted)
    by_moref = {a.moref: o for a, o in reversed(list(zip(wave.answers, own, strict=True))) if a.moref}

    def options_of(vm: SourceVm) -> Options:
        return by_moref[vm.moref]

    of_vms, of_wave = judge(wave, options, by_moref, why_no_files)
    lacking, beside = privileges.concerns(session, wave, options_of, why_no_files)
    for moref, concerns in lacking.items():
        of_vms[moref] += concerns
    return [*entries_of(wave, of_vms)], ordered([*of_wave, *beside])


def judge(
    wave: Wave, options: Options, own: Mapping[str, Options], why_no_files: WhyNoFiles
) -> tuple[dict[str, list[Concern]], list[Concern]]:
    """What is wrong with what was read, by MoRef and of the wave; not the privileges. Pure.

    :param own: options by MoRef.
    """
    shared: dict[str, list[str]] = {}
    for vm in wave.vms.values():
        for disk in vm.disks:
            if disk.path:
                shared.setdefault(disk.path, []).append(vm.name)
    of_vms: dict[str, list[Concern]] = {}
    for vm in wave.vms.values():
        mine = own[vm.moref]
        of_vms[vm.moref] = [
            *precheck_vm.concerns_of(vm, wave, mine),
            *precheck_disks.concerns_of(vm, wave, mine, why_no_files, shared),
            *precheck_wave.unmapped(vm, mine),
        ]
    of_wave = precheck_wave.concerns_of(wave, of_vms, options, lambda vm: own[vm.moref], why_no_files)
    return of_vms, [*of_wave, *_names(wave)]


def _names(wave: Wave) -> list[Concern]:
    """What is wrong with what was asked for, told of the wave too."""
    unknown = [a.asked for a in wave.answers if a.moref is None and not a.matches]
    several = [a.asked for a in wave.answers if a.moref is None and a.matches]
    morefs = [a.moref for a in wave.answers if a.moref]
    twice = list(dict.fromkeys(wave.vms[m].name for m in morefs if morefs.count(m) > 1)) if len(set(morefs)) < len(morefs) else []
    concerns = []
    if unknown:
        concerns.append(found("VMNotFound", f"{len(unknown)} of {len(wave.answers)} VMs were not found: {named(unknown)}."))
    if several:
        concerns.append(found("DuplicateVM", f"More than one VM answers to {named(several)}."))
    if twice:
        concerns.append(found("DuplicateVM", f"The wave has more than once: {named(twice)}."))
    return concerns


def entries_of(wave: Wave, of_vms: Mapping[str, Sequence[Concern]]) -> list[Checked]:
    entries = []
    seen: set[str] = set()
    for answer in wave.answers:
        if answer.moref is None:
            entries.append(Checked(answer.asked, None, None, [_not_one(answer)]))
            continue
        vm = wave.vms[answer.moref]
        concerns = list(of_vms[answer.moref])
        twice = answer.moref in seen
        if twice:
            concerns.append(found("DuplicateVM", "An entry before this one means the same VM."))
        seen.add(answer.moref)
        entries.append(Checked(vm.name, vm.moref, plain(vm.facts), ordered(concerns), twice))
    return entries


def _not_one(answer: Answer) -> Concern:
    if answer.matches:
        return found("DuplicateVM", f"{len(answer.matches)} VMs answer to {answer.asked}: {named(answer.matches)}.")
    close = f" Close to it: {', '.join(answer.close)}." if answer.close else ""
    return found("VMNotFound", f"No VM answers to {answer.asked or 'an empty name'}.{close}")
