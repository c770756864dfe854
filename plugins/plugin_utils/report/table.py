# Copyright (c) 2026, ferry.vmware contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The report as a table for a terminal."""

from __future__ import annotations

from typing import Any, Mapping, Sequence

from ansible_collections.ferry.vmware.plugins.plugin_utils.progress_lines import cells, duration, pad, printable, size
from ansible_collections.ferry.vmware.plugins.plugin_utils.report.model import STATES, Disk, Totals, Vm

_HEAD = ("VM", "disk", "size", "read", "written", "skipped", "MB/s", "time", "volume", "result")
_RIGHT = (False, False, True, True, True, True, True, True, False, False)


def result_of(vm: Vm, disk: Disk | None) -> str:
    """The last column: how the VM ended, and what is proven of the disk."""
    words = [vm.state.replace("_", " ")]
    if disk is not None:
        words += [disk.verified] if disk.verified else []
        words += [f"{disk.repaired} repaired"] if disk.repaired else []
    return ", ".join(words)


def warm(vm: Vm) -> str:
    """C(4 cycles while it ran; away for 21.3 s (20.1 s predicted, 60.0 s allowed), 12.0 MiB of it copied, 40 chunks outside compared)."""
    parts = [f"{len(vm.cycles)} cycle{'' if len(vm.cycles) == 1 else 's'} while it ran"] if vm.cycles else []
    if vm.downtime is not None:
        away = vm.downtime
        told = [f"{duration(away.predicted)} predicted"] if away.predicted is not None else []
        told += [f"{duration(away.budget)} allowed"] if away.budget is not None else []
        differed = f", {away.outside_wrong} of them differed" if away.outside_wrong else ""
        copied = f", {size(away.changed_bytes)} copied meanwhile and {away.outside_checked} chunks outside compared{differed}"
        parts.append(
            f"away for {duration(away.seconds)}" + (f" ({', '.join(told)})" if told else "") + (copied if away.copy or vm.cycles else "")
        )
    return "; ".join(parts)


def short(name: str) -> str:
    """The first eight characters of a UUID, the end of a path: enough to recognize it; the page and the JSON have all of it."""
    name = name.rpartition("/")[2] if name.startswith("/") else name
    return name[:8] if len(name) == 36 and name.count("-") == 4 else printable(name, 24)


def _rate(rate: float) -> str:
    return f"{rate / 1e6:.1f}" if rate > 0 else "–"


def _row(vm: Vm, disk: Disk, first: bool) -> tuple[str, ...]:
    return (
        printable(vm.name, 40) if first else "",
        printable(disk.label, 30),
        size(disk.capacity),
        size(disk.bytes_read),
        size(disk.bytes_written),
        size(disk.bytes_skipped),
        _rate(disk.rate),
        duration(disk.seconds),
        short(disk.target),
        result_of(vm, disk),
    )


def headline(totals: Totals) -> str:
    """C(3 VMs: 2 migrated, 1 failed)."""
    counts = ", ".join(f"{totals.states[state]} {state.replace('_', ' ')}" for state in STATES if totals.states[state])
    return f"{totals.vms} VM{'' if totals.vms == 1 else 's'}" + (f": {counts}" if counts else "")


def render(vms: Sequence[Vm], totals: Totals, title: str, written: Mapping[str, Any] | None = None) -> str:
    """The whole table with its totals, the errors below it and the paths of what was written."""
    if not vms:
        return "\n".join(["", f"  {printable(title, 100)} · {headline(totals)}", *_files(written)])
    rows: list[tuple[str, ...]] = [_HEAD]
    for vm in vms:
        if vm.disks:
            rows += [_row(vm, disk, i == 0) for i, disk in enumerate(vm.disks)]
        else:
            rows.append((printable(vm.name, 40), "–", "", "", "", "", "", duration(vm.seconds), "", result_of(vm, None)))
    sums = [size(getattr(totals, key)) for key in ("capacity", "bytes_read", "bytes_written", "bytes_skipped")]
    total = ("total", f"{totals.disks} disk{'' if totals.disks == 1 else 's'}", *sums, _rate(totals.rate), duration(totals.seconds), "", "")
    widths = [max(cells(row[n]) for row in [*rows, total]) for n in range(len(_HEAD))]

    def line(row: Sequence[str]) -> str:
        return ("  " + "  ".join(pad(cell, widths[n], _RIGHT[n]) for n, cell in enumerate(row))).rstrip()

    rule = "  " + "  ".join("─" * width for width in widths)
    out = ["", f"  {printable(title, 100)} · {headline(totals)}", "", line(rows[0]), rule, *map(line, rows[1:]), rule, line(total), ""]
    for vm in vms:
        for error in vm.errors:
            out.append(f"  {printable(vm.name, 40)}: {printable(error['message'], 1000)}")
            if error.get("next_command"):
                out.append(f"    next: {printable(error['next_command'], 1000)}")
        if vm.downtime is not None or vm.cycles:
            out.append(f"  {printable(vm.name, 40)}: {warm(vm)}")
        for change in vm.drift:
            out.append(f"  {printable(vm.name, 40)}: {printable(change, 300)}")
    out += _files(written)
    while out[-1] == "":
        out.pop()
    return "\n".join(out)


def _files(written: Mapping[str, Any] | None) -> list[str]:
    return [f"  {kind}: {path}" for kind, path in (written or {}).items()]
