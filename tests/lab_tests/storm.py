# Copyright (c) 2026, ferry.vmware contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Seeded storms over copies of one VM: whatever happens, a copy that says success left the disk as it was at the snapshot it read.

    python3 -m tests.lab_tests.storm COUNT SEED     COUNT storms from SEED on; each that fails prints its steps

What happens between and during copies: a guest that writes contents that recur, kills, snapshots of others made, removed and
reverted to, power, changed block tracking switched and reset, larger disks, faults of the server, targets and ledgers that are
deleted, truncated, written to, or put back as they were. Every storm ends with a calm last copy, which has to succeed.
"""

from __future__ import annotations

import contextlib
import faulthandler
import os
import random
import shutil
import signal
import sqlite3
import sys
import tempfile
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from pyVmomi import vim, vmodl

from ansible_collections.ferry.vmware.plugins.module_utils.disk.errors import FerryError
from ansible_collections.ferry.vmware.plugins.module_utils.disk.ledger import file_name
from ansible_collections.ferry.vmware.plugins.module_utils.transfer import disk_copy
from ansible_collections.ferry.vmware.plugins.module_utils.vsphere import cbt
from tests.lab.common import LabError
from tests.lab_tests import storm_targets
from tests.lab_tests.copy_lab import JAPANESE, Lab, lab_of

MIB = 1 << 20
OTHER, KEY = "toolless", 2000
FORMATS = {"a": "raw", "b": "monolithicSparse", "c": "raw", "d": "monolithicFlat"}
#: Places (bytes) that the guest writes to, again and again, with contents that recur.
PLACES = [n * 64 * 1024 for n in range(0, 384, 5)] + [n * MIB for n in range(24)]


#: Seconds of a lease of NFC.
LEASE = 2


class Broken(AssertionError):
    """A promise was broken."""


class Storm:
    """One storm; C(log) has its steps."""

    def __init__(self, lab: Lab, seed: int) -> None:
        self.lab = lab
        self.random = random.Random(seed)
        #: The VM; every third has a second disk, on another datastore, which is copied along now and then.
        self.vm: str = "one" if seed % 3 else JAPANESE
        self.keys: tuple[int, ...] = (KEY,) if seed % 3 else (KEY, 3001)
        self.log: list[str] = []
        self.users: list[Any] = []
        self.names = 0
        #: Whether an error is no surprise: a fault is armed, or something happens during the copy.
        self.rough = False
        self.lies = False
        self.copies = 0

    # -- the guest --------------------------------------------------------------------------------------------------

    def writes(self, source: random.Random, count: int) -> None:
        for _n in range(count):
            length = source.choice((512, 4096, 65536, 65536 + 512, MIB))
            key = source.choice(self.keys)
            start = min(source.choice(PLACES), 24 * MIB - length) if key == KEY else source.randrange(8) * MIB
            kind = source.randrange(3)
            data = bytes(length) if kind == 0 else bytes([kind]) * length
            try:
                self.lab.vcenter.write(self.vm, key, start, data)
            except LabError:
                return  # it does not run

    def write(self) -> None:
        self.writes(self.random, self.random.randrange(1, 8))

    # -- copies -----------------------------------------------------------------------------------------------------

    def options(self) -> dict[str, Any]:
        r = self.random
        name = r.choice("aaabbcd")
        path = str(self.lab.folder / (f"{name}.vmdk" if FORMATS[name] != "raw" else f"{name}.raw"))
        more: dict[str, Any] = {
            "disks": [{"disk": str(KEY), "dest": {"path": path}, "format": FORMATS[name]}],
            "verify": r.choice(("none", "sample", "sample", "full")),
            "transport": r.choice(("auto", "auto", "auto", "nfc")),
            "mode": r.choice(("auto", "auto", "auto", "auto", "incremental", "full")),
            "chunk_size": r.choice((1, 4)) * MIB,
            "workers": r.choice((1, 3)),
            "patience": 6,
            "budget": {"overall": {}},
        }
        if len(self.keys) > 1 and r.random() < 0.5:
            dest = {"path": str(self.lab.folder / "e.raw")}
            more["disks"].append({"disk": str(self.keys[1]), "dest": dest, "format": "raw"})
        if r.random() < 0.3:
            more["outside_sample"] = r.choice((0, 10, 100))
        if self.lies:
            more["outside_sample"] = 100
        if self.users and r.random() < 0.2:
            more["snapshot"] = r.choice(self.users)._moId
        return more

    @contextlib.contextmanager
    def watched(self, during: Callable[[], None] | None) -> Iterator[dict[str, dict[int, str]]]:
        """The hashes of the snapshots of ours that are seen; C(during) begins once one is there, or after a while."""
        seen: dict[str, dict[int, str]] = {}
        over = threading.Event()

        def look() -> None:
            began = time.monotonic()
            started: threading.Thread | None = None
            while not over.is_set():
                with contextlib.suppress(LabError):
                    for s in self.lab.vcenter.snapshots(self.vm):
                        if s["name"].startswith("ferry copy") and s["moref"] not in seen:
                            seen[s["moref"]] = self.hashes(s["moref"])
                if during is not None and started is None and (seen or time.monotonic() - began > 3):
                    started = threading.Thread(target=during)
                    started.start()
                over.wait(0.005)
            if started is not None:
                started.join()

        thread = threading.Thread(target=look)
        thread.start()
        try:
            yield seen
        finally:
            over.set()
            thread.join()

    def hashes(self, snapshot: str = "") -> dict[int, str]:
        """Of each disk, at the snapshot or now."""
        return {key: self.lab.source_sha(self.vm, key, snapshot) for key in self.keys}

    def copy(self, during: Callable[[], None] | None = None, **more: Any) -> bool:
        """Whether it succeeded."""
        options = {**self.options(), **more}
        path = options["disks"][0]["dest"]["path"]
        shown = {k: v for k, v in options.items() if k not in ("disks", "patience", "budget")}
        before = self.hashes(options.get("snapshot") or "")
        if during is not None and "budget" not in more:
            options["budget"] = {"overall": {"rate": 24}}
        with self.watched(during) as seen:
            try:
                found = disk_copy.run(self.lab.params(self.vm, (KEY,), **options))
            except FerryError as e:
                self.note(f"  copy to {Path(path).name} {shown}: {type(e).__name__} {e.code}: {e.message} {e.said or ''}")
                fine = ("not_incremental", "target_exists", "resized", "vm_suspended", "too_many_snapshots", "not_in_snapshot")
                if not (self.rough or during is not None or e.code in fine):
                    raise Broken(f"an error that nothing explains: {e}") from e
                return False
        self.copies += 1
        for row in found["disks"]:
            target, key = Path(row["dest"]["path"]), int(row["key"])
            self.note(f"  copy to {target.name} {shown}: {row['mode']} {row['reason']!r} {row['change_id']} repaired {row['repaired']}")
            if during is None or options.get("snapshot"):
                # Without tracking a copy that was cut off goes on at the snapshot that it was reading, while the VM runs.
                wanted = [before, *seen.values()] if row["change_id"] is None and self.runs() else [before]
            else:
                wanted = list(seen.values()) or [before]
            if storm_targets.content(target) not in [w[key] for w in wanted]:
                raise Broken(f"the target is not what was read: mode {row['mode']}, {row['reason']}")
        left = [s["name"] for s in self.lab.vcenter.snapshots(self.vm) if s["name"].startswith("ferry")]
        if left and not options.get("snapshot") and any(row["mode"] != "none" for row in found["disks"]):
            raise Broken(f"snapshots are left after a success: {left}, mode {found['disks'][0]['mode']}")
        return True

    def killed(self) -> None:
        """A copy in a process of its own that ends by SIGKILL, or SIGTERM, at some moment; perhaps it was through by then."""
        options = {**self.options(), "budget": {"overall": {"rate": self.random.choice((0.5, 4, 16, 200))}}}
        after, how = (
            self.random.choice((0.1, 0.3, 0.5, 0.8, 1.2)) * self.random.random(),
            self.random.choice((signal.SIGKILL,) * 4 + (signal.SIGTERM,)),
        )
        path = Path(options["disks"][0]["dest"]["path"]).name
        self.note(
            f"  killed copy to {path} after {after:.2f} {how.name} { {k: options[k] for k in ('mode', 'verify', 'transport')} } {options.get('snapshot')}"
        )
        pid = os.fork()
        if not pid:
            try:
                disk_copy.run(self.lab.params(self.vm, (KEY,), **options))
            finally:
                os._exit(0)
        time.sleep(0.15 + after)  # the kill comes at a moment that nobody knows
        os.kill(pid, how)
        if options["transport"] == "nfc":
            time.sleep(LEASE + 0.3)  # until then the snapshot's files are locked
        end = time.monotonic() + 20
        while os.waitpid(pid, os.WNOHANG) == (0, 0):
            if time.monotonic() > end:
                os.kill(pid, signal.SIGKILL)
            time.sleep(0.01)  # until it has ended

    def busy_copy(self) -> None:
        """A copy during which something happens."""
        seed = self.random.randrange(1 << 30)
        what = self.random.choice(("write", "write", "write", "snapshot", "remove", "revert", "power", "restart"))
        self.note(f" during the copy: {what}")

        def during() -> None:
            with contextlib.suppress(FerryError, LabError):
                if what == "write":
                    source = random.Random(seed)
                    for _n in range(30):
                        self.writes(source, 2)
                elif what == "snapshot":
                    self.snapshot()
                    self.writes(random.Random(seed), 4)
                elif what == "remove":
                    self.remove()
                elif what == "revert":
                    self.revert()
                    self.writes(random.Random(seed), 4)
                elif what == "power":
                    self.power()
                    self.writes(random.Random(seed), 4)
                else:
                    self.lab.vcenter.restart(0.5)

        rough, self.rough = self.rough, True
        if not self.runs():
            self.rough = rough
            return
        self.copy(during)
        self.rough = rough
        if what == "restart":
            time.sleep(0.6)  # as long as the restart takes
            self.lab.reconnect()

    # -- what others do ---------------------------------------------------------------------------------------------

    def task(self, start: Callable[[], Any]) -> Any:
        """Somebody's task on the VM; None where vCenter refuses it."""
        for _n in range(40):
            try:
                return self.lab.task(start())
            except (FerryError, vmodl.MethodFault) as e:
                if not isinstance(e, vim.fault.TaskInProgress) and getattr(e, "details", {}).get("fault") != "TaskInProgress":
                    self.note(f"  refused: {type(e).__name__} {str(e)[:100]}")
                    return None
                time.sleep(0.05)  # vCenter works on the VM
        return None

    def snapshot(self) -> None:
        if len(self.users) < 3:
            self.names += 1
            found = self.task(lambda: self.lab.ref(self.vm).ref.CreateSnapshot_Task(f"user {self.names}", "", False, False))
            if found is not None:
                self.users.append(found)

    def remove(self) -> None:
        if self.users:
            gone = self.users.pop(self.random.randrange(len(self.users)))
            self.task(lambda: self.lab.session.managed("VirtualMachineSnapshot", gone._moId).RemoveSnapshot_Task(False, True))

    def revert(self) -> None:
        there = self.lab.vcenter.snapshots(self.vm)
        if there:
            to = self.random.choice(there)["moref"]
            self.task(lambda: self.lab.session.managed("VirtualMachineSnapshot", to).RevertToSnapshot_Task(None, False))
            if self.random.random() < 0.8:
                self.task(lambda: self.lab.ref(self.vm).ref.PowerOnVM_Task(None))

    def runs(self) -> bool:
        ref = self.lab.ref(self.vm).ref
        return bool(self.lab.session.call(lambda: ref.runtime.powerState) == "poweredOn")

    def power(self) -> None:
        ref, on = self.lab.ref(self.vm).ref, self.runs()
        self.task(lambda: ref.PowerOffVM_Task() if on else ref.PowerOnVM_Task(None))

    def tracking(self) -> None:
        with contextlib.suppress(FerryError):
            cbt.apply(self.lab.session, self.lab.ref(self.vm), enable=self.random.random() < 0.7)

    def reset(self) -> None:
        self.lab.vcenter.post("/cbt/reset", vm=self.vm)

    def lower(self) -> None:
        # A sequence that goes back and passes by the old number again hides what changed between: only a sample finds that.
        self.lies = True
        self.lab.vcenter.post("/cbt/lower", vm=self.vm, by=self.random.randrange(1, 4))

    def larger(self) -> None:
        """The disk is made larger; sinks of VMDKs of another size are refused, so these go."""
        if len(self.keys) > 1 or self.lab.vcenter.snapshots(self.vm):
            return  # the simulator mixes the devices up where there are several
        ref = self.lab.ref(self.vm).ref
        devices = self.lab.session.call(lambda: ref.config.hardware.device)
        disk = next(d for d in devices if d.key == KEY)
        disk.capacityInBytes += self.random.choice((512, MIB, 3 * MIB))
        disk.capacityInKB = disk.capacityInBytes // 1024
        change = vim.vm.device.VirtualDeviceSpec(operation="edit", device=disk)
        self.task(lambda: ref.ReconfigVM_Task(vim.vm.ConfigSpec(deviceChange=[change])))
        self.note(f"  {disk.capacityInBytes} bytes now")
        for name in ("b.vmdk", "d.vmdk", "d-flat.vmdk"):
            (self.lab.folder / name).unlink(missing_ok=True)

    def switches(self) -> None:
        r = self.random
        name, values = r.choice(
            (
                ("cbt_revert", ("new", "keep", "keep", "lower")),
                ("cbt_parts", ("1", "3", "")),
                ("cbt_star_whole", ("1", "")),
                ("delta_format", ("redoLogFormat", "seSparseFormat")),
                ("consolidate_seconds", ("0.3", "")),
                ("cbt_query_ms", ("100", "")),
                ("cbt_miss", ("every:2", "")),
                ("cbt_star_miss", ("every:2", "")),
                ("cbt_consolidation_misses", ("1", "")),
                ("snapshot_seconds", ("0.2", "")),
            )
        )
        value = r.choice(values)
        self.note(f"  {name} {value}")
        self.lies = self.lies or "miss" in name
        self.lab.vcenter.switch(name, value)

    def faults(self) -> None:
        kind, options = self.random.choice(
            (
                ("snapshot_create_fail", {}),
                ("snapshot_remove_fail", {}),
                ("consolidate_fail", {}),
                ("cbt_file_fault", {}),
                ("folder_cut", {"match": "vmdk", "after_bytes": 200_000}),
                ("folder_etag", {"match": "flat"}),
                ("folder_short", {"match": "flat", "after_bytes": 1000}),
                ("session_expire", {"match": "flat"}),
                ("nfc_error", {}),
                ("soap_fault", {"match": "RemoveSnapshot_Task", "fault": "NotSupported"}),
                ("soap_fault", {"match": "QueryChangedDiskAreas", "fault": "FileFault"}),
            )
        )
        self.note(f"  {kind} {options}")
        self.lab.vcenter.fault(kind, times=1, **options)
        self.rough = True
        self.copy()
        self.lab.vcenter._call("DELETE", "/faults")
        self.rough = False

    # -- the target and the ledger ------------------------------------------------------------------------------------

    def targets(self) -> list[Path]:
        return [p for n in ("a.raw", "c.raw", "b.vmdk", "e.raw") if (p := self.lab.folder / n).exists()]

    def complete(self, target: Path) -> bool:
        """Whether the target's copy is through; in the middle of one, a change of bytes in place is nobody's to see."""
        uuid = self.lab.ref(self.vm).instance_uuid
        path = (
            self.lab.folder / "state" / "ledgers" / file_name(uuid, str(self.keys[-1] if target.name == "e.raw" else KEY), f"path:{target}")
        )
        if not path.exists():
            return True
        with contextlib.closing(sqlite3.connect(path)) as db:
            row = db.execute("SELECT value FROM facts WHERE name = 'state'").fetchone()
        return row is None or row[0] != '"copying"'

    def tamper(self) -> None:
        there = self.targets()
        if not there:
            return
        target = self.random.choice(there)
        how = self.random.choice(("delete", "truncate", "write", "replace", "other", "empty"))
        if how in ("write",) and (not self.complete(target) or target.suffix == ".vmdk"):
            return
        self.note(f"  {how} {target.name}")
        if target.suffix == ".vmdk":
            target.unlink()
        elif how != "other":
            storm_targets.alter(target, how, self.random)
        else:
            # another VM's disk, of the same size, goes there by mistake
            disk = {"disk": str(KEY), "dest": {"path": str(target)}, "format": "raw"}
            disk_copy.run(self.lab.params(OTHER, (KEY,), disks=[disk], budget={"overall": {}}))

    def ledgers(self) -> None:
        """The ledgers go back to what they were, or go."""
        folder, kept = self.lab.folder / "state" / "ledgers", self.lab.folder / "ledgers.kept"
        if not folder.exists():
            return
        how = self.random.choice(("keep", "keep", "restore", "restore", "delete"))
        if how == "keep":
            shutil.rmtree(kept, ignore_errors=True)
            shutil.copytree(folder, kept)
        elif how == "delete" or kept.exists():
            shutil.rmtree(folder)
            if how == "restore":
                shutil.copytree(kept, folder)
        else:
            return
        self.note(f"  ledgers {how}")

    # -- all of it ----------------------------------------------------------------------------------------------------

    def note(self, text: str) -> None:
        self.log.append(text)
        if os.environ.get("FERRY_STORM_SHOW"):
            print(text, flush=True)

    def calm(self) -> None:
        """No faults and no switches, but that the leases of killed exports end soon."""
        self.lab.vcenter.clear()
        self.lab.vcenter.switch("nfc_timeout", LEASE)

    def step(self) -> None:
        steps: list[tuple[int, Callable[[], Any]]] = [
            (14, self.write),
            (12, self.copy),
            (9, self.killed),
            (6, self.busy_copy),
            (3, self.snapshot),
            (3, self.remove),
            (2, self.revert),
            (2, self.power),
            (2, self.tracking),
            (1, self.reset),
            (1, self.lower),
            (1, self.larger),
            (3, self.switches),
            (3, self.faults),
            (3, self.tamper),
            (2, self.ledgers),
        ]
        what = self.random.choices([s for _weight, s in steps], [weight for weight, _s in steps])[0]
        self.note(what.__name__)
        what()

    def run(self, steps: int) -> None:
        self.calm()
        if self.random.random() < 0.85:
            self.lab.track(self.vm)
        for _n in range(steps):
            self.step()
        self.note("the last copy")
        self.calm()
        self.lab.reconnect()
        self.lab.power(self.vm, False)
        left = sorted({options["disks"][0]["dest"]["path"]: options for options in (self.options() for _n in range(12))}.items())
        for _path, options in left:
            self.copy(**{**options, "snapshot": None, "mode": "auto", "transport": "auto", "outside_sample": 100})


def storm(folder: Path, seed: int, steps: int | None = None) -> Storm:
    """Storm C(seed) in C(folder).

    :raises Broken: a promise was broken; the message has the steps.
    """
    with lab_of(folder) as lab:
        found = Storm(lab, seed)
        try:
            found.run(steps or random.Random(seed).randrange(15, 41))
        except Exception as e:  # whatever it is, the steps that led to it are what is wanted
            raise Broken("\n".join([f"storm {seed}:", *found.log, traceback.format_exc(limit=-4)])) from e
        return found


def main(count: int, first: int) -> int:
    """C(count) storms; how many failed."""
    failed = 0
    faulthandler.register(signal.SIGUSR1, all_threads=True)
    for seed in range(first, first + count):
        began = time.monotonic()
        with tempfile.TemporaryDirectory(prefix="storm") as folder:
            try:
                found = storm(Path(folder) / "s", seed)
                print(f"storm {seed}: {found.copies} copies equal, {time.monotonic() - began:.1f} s", flush=True)
            except Broken as e:
                failed += 1
                print(f"FAILED {e}\n", flush=True)
    print(f"{count} storms, {failed} failed")
    return failed


if __name__ == "__main__":
    sys.exit(bool(main(int(sys.argv[1]), int(sys.argv[2]))))
