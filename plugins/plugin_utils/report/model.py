# Copyright (c) 2026, ferry.vmware contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What the report is made of: the results of the VMs, checked and summed up. Sizes in bytes, times in seconds."""

from __future__ import annotations

import json
import math
import re
from dataclasses import dataclass, field
from typing import Any, Iterable, Mapping, Sequence

from ansible_collections.ferry.vmware.plugins.module_utils.concerns import CATEGORIES, INFORMATION

STATES = ("migrated", "precopied", "mended", "rolled_back", "unchanged", "failed")
#: What is shown of a concern.
CONCERN = ("id", "category", "label", "assessment", "advice", "disk", "device")
#: No text from outside is longer than this in the report.
MAX_TEXT = 4000
_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")


@dataclass
class Disk:
    """What was done for one disk."""

    label: str
    capacity: int = 0
    bytes_read: int = 0
    bytes_written: int = 0
    bytes_skipped: int = 0
    bytes_resumed: int = 0
    seconds: float = 0.0
    digest: str = ""
    target: str = ""
    verified: str = ""
    repaired: int = 0
    mode: str = ""
    transport: str = ""

    @property
    def rate(self) -> float:
        """Bytes per second that really moved; 0 where nothing did."""
        return max(self.bytes_read, self.bytes_written) / self.seconds if self.seconds > 0 else 0.0

    def shares(self) -> dict[str, float]:
        """Percent of the capacity that was written now, came from an earlier run, and needed no writing."""
        whole = max(self.capacity, self.bytes_written + self.bytes_resumed + self.bytes_skipped, 1)
        parts = {"written": self.bytes_written, "resumed": self.bytes_resumed, "skipped": self.bytes_skipped}
        return {name: 100 * value / whole for name, value in parts.items()}


@dataclass
class CycleRow:
    """One cycle of precopying; rates in bytes per second."""

    number: int
    mode: str = ""
    changed_bytes: int = 0
    bytes_written: int = 0
    churn: float = 0.0
    throughput: float = 0.0
    seconds: float = 0.0
    predicted: float | None = None


@dataclass
class Downtime:
    """How long a machine that moved warm was away, and what had been said before, in seconds."""

    seconds: float
    shutdown: float = 0.0
    copy: float = 0.0
    predicted: float | None = None
    budget: float | None = None
    changed_bytes: int = 0
    outside_checked: int = 0
    outside_wrong: int = 0


@dataclass
class Vm:
    """What was done for one VM."""

    name: str
    state: str
    source_uuid: str = ""
    server_id: str = ""
    server_name: str = ""
    seconds: float = 0.0
    disks: list[Disk] = field(default_factory=list)
    drift: list[str] = field(default_factory=list)
    errors: list[dict[str, Any]] = field(default_factory=list)
    cycles: list[CycleRow] = field(default_factory=list)
    downtime: Downtime | None = None
    concerns: list[dict[str, str]] = field(default_factory=list)


@dataclass
class Totals:
    """Sums over all VMs; C(seconds) is the sum of their disks' times, not the time on the clock."""

    vms: int = 0
    disks: int = 0
    capacity: int = 0
    bytes_read: int = 0
    bytes_written: int = 0
    bytes_skipped: int = 0
    bytes_resumed: int = 0
    seconds: float = 0.0
    repaired: int = 0
    states: dict[str, int] = field(default_factory=dict)

    @property
    def rate(self) -> float:
        return max(self.bytes_read, self.bytes_written) / self.seconds if self.seconds > 0 else 0.0


def plain(value: Any) -> Any:
    """C(value) as JSON would hold it, free of Ansible's own kinds of strings and containers."""
    if isinstance(value, Mapping):
        return {str(k): plain(v) for k, v in value.items()}
    if isinstance(value, str):
        return "".join(value)  # also of a subclass
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, int):
        return int(value)
    if isinstance(value, float):
        return float(value) if math.isfinite(value) else None
    if isinstance(value, Iterable) and not isinstance(value, (bytes, bytearray)):
        return [plain(v) for v in value]
    return str(value)


def text(value: Any) -> str:
    """A text from outside, without control characters and not endless; empty for nothing."""
    if value is None:
        return ""
    shown = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False) if isinstance(value, (dict, list)) else str(value)
    shown = _CONTROL.sub("\N{REPLACEMENT CHARACTER}", shown)
    return shown if len(shown) <= MAX_TEXT else shown[: MAX_TEXT - 1] + "…"


def number(value: Any) -> float:
    """A size or a time: not negative, 0 where it is none (jinja hands over strings)."""
    try:
        found = float(value)
    except (TypeError, ValueError):
        return 0.0
    return found if math.isfinite(found) and found > 0 else 0.0


def _verified(value: Any) -> str:
    """In words; the modules say none, sample or full, older results true or false."""
    word = text(value).lower()
    return {"": "", "none": "", "false": "", "true": "verified", "full": "verified in full", "sample": "sample verified"}.get(
        word, f"verified ({word})"
    )


def _disk(row: Mapping[str, Any], n: int) -> Disk:
    def whole(key: str) -> int:
        return int(number(row.get(key)))

    dest = row.get("dest")
    dest = dest if isinstance(dest, Mapping) else {}
    return Disk(
        label=text(row.get("label") or row.get("disk")) or f"disk {n}",
        capacity=whole("capacity"),
        bytes_read=whole("bytes_read"),
        bytes_written=whole("bytes_written"),
        bytes_skipped=whole("bytes_skipped"),
        bytes_resumed=whole("bytes_resumed"),
        seconds=number(row.get("seconds")),
        digest=text(row.get("digest")),
        target=text(row.get("volume_id") or dest.get("volume") or dest.get("image") or dest.get("path")),
        verified=_verified(row.get("verified")),
        repaired=whole("repaired"),
        mode=text(row.get("mode")),
        transport=text(row.get("transport")),
    )


def _cycle(row: Mapping[str, Any], n: int) -> CycleRow:
    return CycleRow(
        number=int(number(row.get("cycle"))) or n,
        mode=text(row.get("mode")),
        changed_bytes=int(number(row.get("changed_bytes"))),
        bytes_written=int(number(row.get("bytes_written"))),
        churn=number(row.get("churn")),
        throughput=number(row.get("throughput")),
        seconds=number(row.get("seconds")),
        predicted=number(row.get("predicted_downtime")) or None,
    )


def _downtime(row: Any) -> Downtime | None:
    if not isinstance(row, Mapping):
        return None
    return Downtime(
        seconds=number(row.get("seconds")),
        shutdown=number(row.get("shutdown")),
        copy=number(row.get("copy")),
        predicted=number(row.get("predicted")) or None,
        budget=number(row.get("budget")) or None,
        changed_bytes=int(number(row.get("changed_bytes"))),
        outside_checked=int(number(row.get("outside_checked"))),
        outside_wrong=int(number(row.get("outside_wrong"))),
    )


def _error(value: Any) -> dict[str, Any]:
    """An error as a dictionary with C(message), and C(next_command) and the other facts where they are known."""
    if not isinstance(value, Mapping):
        found = re.search(r"^(.*?)\s*\bNext: (.+)$", text(value), re.S)
        return {"message": found[1], "next_command": found[2]} if found else {"message": text(value)}
    message = text(value.get("message") or value.get("msg") or value.get("said") or value.get("code")) or "failed"
    facts = {key: text(value.get(key)) for key in ("disk", "step", "said", "left", "next_command")}
    return {"message": message, **{k: v for k, v in facts.items() if v and v not in message}}


def concerns_of(value: Any) -> list[dict[str, str]]:
    """What a check before has found, the worst first, as ferry.vmware.vm_precheck returns it."""
    rows = [{key: text(row.get(key)) for key in CONCERN} for row in _list(value) if isinstance(row, Mapping)]
    order = {name: n for n, name in enumerate(CATEGORIES)}
    for row in rows:
        row["category"] = row["category"] if row["category"] in order else INFORMATION
    return sorted(rows, key=lambda row: order[row["category"]])


def _drift(value: Any) -> str:
    if isinstance(value, Mapping):
        return "; ".join(f"{text(k)}: {text(v)}" for k, v in value.items())
    return text(value)


def _list(value: Any) -> list[Any]:
    if value is None or value == "":
        return []
    return list(value) if isinstance(value, Sequence) and not isinstance(value, str) else [value]


def cycles_of(value: Any) -> list[CycleRow]:
    """The cycles of precopying, as ferry.vmware.vm_precopy returns them."""
    return [_cycle(c, i + 1) for i, c in enumerate(_list(value)) if isinstance(c, Mapping)]


def vms_of(results: Any) -> list[Vm]:
    """The VMs of the argument C(results).

    :raises ValueError: with everything that is wrong in it, not only the first.
    """
    problems: list[str] = []
    found: list[Vm] = []
    if isinstance(results, (str, Mapping)) or not isinstance(results, Iterable):
        raise ValueError("results must be a list of dictionaries, one per VM")
    for n, row in enumerate(results):
        where = f"results[{n}]"
        if not isinstance(row, Mapping):
            problems.append(f"{where} is not a dictionary")
            continue
        name, state = text(row.get("name")), text(row.get("state"))
        if not name:
            problems.append(f"{where} has no name")
        if state not in STATES:
            problems.append(f"{where}: state must be one of {', '.join(STATES)}, got {state[:40]!r}")
        disks = _list(row.get("disks"))
        if not all(isinstance(d, Mapping) for d in disks):
            problems.append(f"{where}: disks must be a list of dictionaries")
            disks = []
        server = row.get("server")
        server = server if isinstance(server, Mapping) else {}
        found.append(
            Vm(
                name=name,
                state=state,
                source_uuid=text(row.get("source_uuid")),
                server_id=text(server.get("id")),
                server_name=text(server.get("name")),
                seconds=number(row.get("seconds")),
                disks=[_disk(d, i + 1) for i, d in enumerate(disks)],
                drift=[_drift(d) for d in _list(row.get("drift"))],
                errors=[_error(e) for e in _list(row.get("errors"))],
                cycles=cycles_of(row.get("cycles")),
                downtime=_downtime(row.get("downtime")),
                concerns=concerns_of(row.get("concerns")),
            )
        )
    if problems:
        raise ValueError("; ".join(problems))
    return found


def totals_of(vms: Sequence[Vm]) -> Totals:
    """Sums over C(vms)."""
    out = Totals(vms=len(vms), states={state: sum(vm.state == state for vm in vms) for state in STATES})
    for disk in (d for vm in vms for d in vm.disks):
        out.disks += 1
        for key in ("capacity", "bytes_read", "bytes_written", "bytes_skipped", "bytes_resumed", "seconds", "repaired"):
            setattr(out, key, getattr(out, key) + getattr(disk, key))
    return out
