# Copyright (c) 2026, ferry.vmware contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""An importer's progress in the lines of our own copies."""

from __future__ import annotations

from typing import Any

from ansible_collections.ferry.vmware.plugins.plugin_utils.kubernetes import harvester, state
from ansible_collections.ferry.vmware.plugins.plugin_utils.kubernetes.lines import Lines, status_of

GIB = 1 << 30


def vm(step: str, done: int = 0, end: str = "", phase: str = "CopyDisks", **more: Any) -> dict[str, Any]:
    """A VM of a Migration at a step, with two disks of 1 GiB."""
    names = ["[fast] web01/web01.vmdk", "[fast] web01/web01_1.vmdk"]
    tasks = [{"name": n, "progress": {"completed": done, "total": 1024}} for n in names]
    transfer = {"name": "DiskTransfer", "phase": "Completed", "annotations": {"unit": "MB"}, "tasks": tasks}
    transfer["progress"] = {"completed": 2 * done, "total": 2048}
    pipeline = [{"name": "Initialize", "phase": "Completed"}, transfer, {"name": "ImageConversion", "phase": "Completed"}]
    for one in pipeline:
        if one["name"] == step:
            one["phase"] = "Running"
    conditions = [{"type": end, "status": "True"}] if end else []
    return {"id": "vm-1", "name": "web01", "newName": "web01", "phase": phase, "pipeline": pipeline, "conditions": conditions, **more}


class Watch:
    """What would be said, second by second."""

    def __init__(self) -> None:
        self.now = 100.0
        self.lines = Lines(lambda: self.now)

    def __call__(self, one: dict[str, Any], seconds: float = 10) -> list[str]:
        row = state.vm_row(one)
        said = self.lines.of([(row["name"], self.lines.rated(row["name"], status_of(row)))])
        self.now += seconds
        return [" ".join(line.split()) for line in said]


def test_a_vm_from_its_first_step_to_its_last() -> None:
    watch = Watch()
    assert watch(vm("Initialize")) == ["web01 – 0 B 0.0 MB/s Initialize"]
    assert watch(vm("Initialize")) == []
    assert watch(vm("DiskTransfer", 0)) == [
        "web01 0.0% 0.0 of 1.0 GiB 0.0 MB/s",
        "web01 · web01_1 0.0% 0.0 of 1.0 GiB 0.0 MB/s",
    ]
    assert watch(vm("DiskTransfer", 256)) == [
        "web01 25.0% 0.2 of 1.0 GiB 26.8 MB/s 00:00:30 left",
        "web01 · web01_1 25.0% 0.2 of 1.0 GiB 26.8 MB/s 00:00:30 left",
    ]
    # Nothing has moved: nothing is said.
    assert watch(vm("DiskTransfer", 256)) == []
    assert watch(vm("ImageConversion", 1024)) == ["web01 – 0 B 0.0 MB/s ImageConversion"]
    done = watch(vm("", 1024, "Succeeded"))
    assert [line.partition(" done ")[0] for line in done] == ["web01", "web01 · web01_1"]
    assert "1.0 GiB moved 1.0 GiB" in done[0]
    assert watch(vm("", 1024, "Succeeded")) == []


def test_a_failure_and_a_wait() -> None:
    reason = {"error": {"reasons": ["no such driver"]}}
    (first, _second) = Watch()(vm("", 1024, "Failed", **reason))
    assert "failed at" in first and first.endswith("no such driver")
    waits = Watch()(vm("DiskTransfer", 1024, phase="CopyingPaused", warm={"successes": 2}))
    assert [line.rpartition(" ")[2] for line in waits] == ["precopied", "precopied"]
    assert Watch()({"id": "vm-1", "name": "web01", "conditions": [{"type": "Failed", "status": "True"}]}) == ["web01 – 0 B 0.0 MB/s failed"]


def test_names_of_disks_that_are_the_same() -> None:
    one = vm("DiskTransfer", 1)
    one["pipeline"][1]["tasks"][1]["name"] = "[slow] web01/web01.vmdk"
    assert [line.split(" ")[2:4] for line in Watch()(one)] == [["web01", "1"], ["web01", "2"]]


def test_an_import() -> None:
    disks = [{"diskName": "db01-disk-0.img", "diskSize": GIB, "VirtualMachineImage": "image-1"}]
    status = {"importStatus": "diskImageSubmitted", "diskImportStatus": disks}
    found = {"metadata": {"name": "db01"}, "spec": {"virtualMachineName": "DB01"}, "status": status}
    image = {"metadata": {"name": "image-1"}, "status": {"progress": 50}}
    (row,) = harvester.progress([found], [image])["rows"]
    assert row["disks"] == [{"name": "db01-disk-0.img", "done": GIB // 2, "total": GIB}]
    assert status_of({**row, "step": row["state"]})["db01-disk-0"]["done"] == GIB // 2
    status["importStatus"] = "sourceReady"
    status["importConditions"] = [{"type": "VMShutdownGuest", "status": "True"}]
    (row,) = harvester.progress([found], [])["rows"]
    assert row["shutting_down"] is True
    assert status_of({**row, "step": row["state"]})[""]["phase"] == "guest shuts down"
    status["importConditions"] += [{"type": "VMPoweredOff", "status": "True"}]
    assert harvester.progress([found], [])["rows"][0]["shutting_down"] is False
