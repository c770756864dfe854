# Copyright (c) 2026, ferry.vmware contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Copies over the datastore's HTTPS beside nbdkit's curl plugin with nbdcopy, in turns; the median counts.

Both read the same files of one lab vCenter, verify its certificate, and write sparse files. Every target is compared with the source
before a figure is written. Ours is a process of its own each time: Python's start, ledger and digests are in its seconds.
Writes build/bench/copy.json.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any, Callable, Iterable
from urllib.parse import quote

from ansible_collections.ferry.vmware.plugins.module_utils.disk.sinks.label import NAME as LABEL
from ansible_collections.ferry.vmware.plugins.module_utils.vsphere.client import connect
from tests.bench.bench_vmdk import in_turns, make_disk, same
from tests.lab.common import Place
from tests.lab.vcenter import VCenter

TOP = Path(__file__).resolve().parents[2]
BUILD = TOP / "build"
MIB, GIB = 1 << 20, 1 << 30
AREA = 64 << 10
#: nbdcopy's best settings found (2 cores): several connections, which the plugin allows by this filter only, each serving one
#: request at a time; large requests.
BEST = (["--filter=multi-conn"], ["multi-conn-mode=unsafe"], ["--connections=4", "--requests=16", "--request-size=4194304"])
PLAIN: tuple[list[str], list[str], list[str]] = ([], [], [])
NAME = "nbdkit-curl + nbdcopy"


class Bench:
    """One vCenter, its VM's disks, and both ways to copy them."""

    def __init__(self, cookie: str, lab: VCenter, folder: Path, rounds: int) -> None:
        self.folder = folder
        self.rounds = rounds
        self.ca = str(lab.place.state / "ca.pem")
        self.port = lab.port
        self.cookie = cookie
        self.cookie_file = folder / "cookie"
        self.cookie_file.touch(0o600)
        self.cookie_file.write_text(cookie)
        self.rows: list[dict[str, Any]] = []

    def url(self, disk: str) -> str:
        return f"/folder/{quote('bench/' + disk + '-flat.vmdk')}?dcPath=DC0&dsName=ds"

    def ours(self, *disks: dict[str, Any], **task: Any) -> tuple[float, dict[str, Any]]:
        """(seconds, what it said). Targets and ledgers are as they stand."""
        text = {"port": self.port, "ca": self.ca, "cookie": self.cookie, "disks": list(disks), **task}
        env = {**os.environ, "PYTHONPATH": str(BUILD / "collections")}
        os.sync()  # nbdcopy leaves what it wrote to the kernel: that must not be written while the next one is measured
        began = time.monotonic()
        out = subprocess.run(
            [sys.executable, str(TOP / "tests" / "bench" / "copy_child.py")],
            input=json.dumps(text),
            env=env,
            check=True,
            stdout=subprocess.PIPE,
            text=True,
        )
        return time.monotonic() - began, json.loads(out.stdout)

    def disk(self, name: str, capacity: int, target: str, **more: Any) -> dict[str, Any]:
        path = self.folder / target
        return {
            "name": name,
            "url": self.url(name),
            "capacity": capacity,
            "target": str(path),
            "ledger": str(path) + ".ledger",
            **more,
        }

    def forget(self, target: str) -> Path:
        """Remove a target and its ledger."""
        for found in self.folder.glob(target + "*"):
            found.unlink()
        return self.folder / target

    def peer(self, name: str, target: Path, settings: tuple[list[str], list[str], list[str]], filters: Iterable[str] = ()) -> float:
        before, after, copy = settings
        url = f"https://127.0.0.1:{self.port}{self.url(name)}"
        kit = ["nbdkit", "--exit-with-parent", *before, *(f for f in filters if f.startswith("--")), "curl", url]
        kit += [f"cainfo={self.ca}", f"cookie={self.cookie_file.read_text()}", *after, *(f for f in filters if not f.startswith("--"))]
        os.sync()
        began = time.monotonic()
        subprocess.run(["nbdcopy", *copy, "--", "[", *kit, "]", str(target)], check=True)
        return time.monotonic() - began

    def row(self, work: str, peer: str, ours: float, theirs: float, goal: float, unit: str = "s", **more: Any) -> None:
        ratio = round(theirs / ours, 2)
        found = {"work": work, "peer": peer, "ours_value": round(ours, 3), "peer_value": round(theirs, 3), "unit": unit, "ratio": ratio}
        self.rows.append({**found, "goal": goal, **more})
        print(f"{work}: {ours:.3f} {unit}, {peer} {theirs:.3f} {unit}, {ratio} (goal {goal})", file=sys.stderr)

    # -- the rows ----------------------------------------------------------------------------------------------------

    def full(
        self, name: str, raw: Path, work: str, settings: tuple[list[str], list[str], list[str]], label: str, goal: float, **more: Any
    ) -> None:
        size = raw.stat().st_size

        def we() -> float:
            self.forget("mine")
            return self.ours(self.disk(name, size, "mine", **more))[0]

        def they() -> float:
            return self.peer(name, self.forget("theirs"), settings)

        a, b = in_turns(self.rounds, we, they)
        same(self.folder / "mine", raw)
        same(self.folder / "theirs", raw)
        self.row(work, f"{NAME}, {label}", a, b, goal)

    def delta(self, name: str, raw: Path, changed: list[int], work: str, goal: float, *, extents: bool) -> None:
        """A copy of areas of 64 KiB at C(changed), into a target that was equal before they changed."""
        size = raw.stat().st_size
        areas, listed = self.folder / "areas", self.folder / "extents"
        areas.write_text("".join(f"{start} {AREA}\n" for start in changed))
        listed.write_text("".join(f"{start} {AREA}\n" for start in changed))
        # the state before: other bytes at the areas, in a target and a ledger that know of no change since
        mine, theirs, ledger = self.forget("mine"), self.forget("theirs"), self.folder / "mine.ledger"
        whole = self.folder / "whole"
        whole.write_text(f"0 {size}\n")
        self.ours(self.disk(name, size, "mine", allocated=str(whole)))
        kept, stamp, label = ledger.read_bytes(), mine.stat().st_mtime_ns, os.getxattr(mine, LABEL)

        def before(target: Path) -> None:
            with target.open("r+b") as f:
                for start in changed:
                    f.seek(start)
                    f.write(b"before__" * (AREA // 8))
                os.fsync(f.fileno())

        read: list[int] = []

        def we() -> float:
            before(mine)
            ledger.write_bytes(kept)
            os.setxattr(mine, LABEL, label)
            os.utime(mine, ns=(stamp, stamp))
            return said(self.ours(self.disk(name, size, "mine", areas=str(areas))))

        def said(found: tuple[float, dict[str, Any]]) -> float:
            seconds, text = found
            (disk,) = text["disks"]
            if disk["mode"] != "incremental":
                raise SystemExit(f"not incremental but {disk['mode']}: {disk.get('reason')}")
            read.append(disk["bytes_read"])
            return seconds

        def they() -> float:
            if not extents:
                return self.peer(name, self.forget("theirs"), BEST)
            if not theirs.exists():
                subprocess.run(["cp", "--sparse=always", str(mine), str(theirs)], check=True)
            before(theirs)
            filters = ["--filter=extentlist", f"extentlist={listed}"]
            return self.peer(name, theirs, (BEST[0], BEST[1], [*BEST[2], "--destination-is-zero"]), filters)

        a, b = in_turns(self.rounds, we, they)
        same(self.folder / "mine", raw)
        how = "with the extentlist filter" if extents else "the whole disk, best settings"
        self.row(work, f"{NAME}, {how}", a, b, goal)
        wanted = len(changed) * AREA
        self.row(f"{work}: bytes read", "the changed bytes", max(read), wanted, round(1 / 1.1, 2), "B")


def model(folder: Path, disks: dict[str, Path]) -> Path:
    path = folder / "model.json"
    vm = {
        "name": "bench",
        "host": "esx1",
        "datastore": "ds",
        "disks": [{"controller": "pvscsi", "unit": n, "path": str(raw)} for n, raw in enumerate(disks.values())],
    }
    path.write_text(
        json.dumps(
            {
                "datacenter": "DC0",
                "clusters": [{"name": "C0", "hosts": ["esx1"]}],
                "networks": ["VM Network"],
                "datastores": [{"name": "ds", "type": "VMFS", "capacity": "1TiB", "hosts": ["esx1"]}],
                "vms": [vm],
            }
        )
    )
    return path


def measure(folder: Path, rounds: int, size: int, only: list[str] | None) -> list[dict[str, Any]]:
    def wanted(part: str) -> bool:
        return not only or part in only

    data, zeroes, dense, wide, sparse = (folder / f"{n}.raw" for n in ("data", "zeroes", "dense", "wide", "sparse"))
    make_disk(data, size, 30)
    disks = {"data": data}
    if wanted("zeroes"):
        with zeroes.open("wb") as f:
            f.truncate(size)
        disks["zeroes"] = zeroes
    if wanted("delta"):
        fill(dense, 2 * size, data)
        disks["dense"] = dense
    if wanted("areas"):
        scatter(wide, 100_000)
        disks["wide"] = wide
    if wanted("memory"):
        with sparse.open("wb") as f:
            f.truncate(2048 * GIB)
            for at in range(0, 2048, 16):
                f.seek(at * GIB)
                f.write(os.urandom(MIB))
        disks["sparse"] = sparse
    names = {name: f"bench{'' if not n else f'_{n}'}" for n, name in enumerate(disks)}
    lab = VCenter(Place(folder / "lab", int(os.environ.get("FERRY_BENCH_BASE", "21800"))))
    lab.up(model(folder, disks))
    try:
        env = lab.env()
        params = {"hostname": env["VMWARE_HOST"], "port": lab.port, "username": env["VMWARE_USER"], "password": env["VMWARE_PASSWORD"]}
        with connect({**params, "ca_path": env["VMWARE_CA_PATH"]}) as session:
            bench = Bench(session.folder_access().headers()["Cookie"], lab, folder, rounds)
            if wanted("full"):
                work = f"{size >> 30} GiB, 30 % data, https to a file"
                bench.full(names["data"], data, work, BEST, "best settings: " + " ".join((*BEST[0], *BEST[2])), 1.2)
                bench.full(names["data"], data, work, PLAIN, "defaults", 2.0)
                # As a copy goes where the VM has changed block tracking: "*" names what is allocated, and no peer asks for it.
                listed = allocated(data, folder / "allocated")
                bench.full(names["data"], data, f'{work}, with what "*" names', PLAIN, "defaults", 2.0, allocated=str(listed))
            if wanted("zeroes"):
                none = folder / "none"
                none.touch()
                work = f"{size >> 30} GiB of zeroes and holes, nothing allocated"
                bench.full(names["zeroes"], zeroes, work, BEST, "best settings", 10.0, allocated=str(none))
            if wanted("delta"):
                step = 100 * AREA
                bench.delta(
                    names["dense"],
                    dense,
                    list(range(0, 2 * size, step)),
                    f"delta of 1 % of {2 * size >> 30} GiB in areas of 64 KiB",
                    25.0,
                    extents=False,
                )
            if wanted("areas"):
                bench.delta(names["wide"], wide, list(range(0, 200_000 * AREA, 2 * AREA)), "100,000 areas of 64 KiB", 1.5, extents=True)
            if wanted("two"):
                two(bench, names["data"], data)
            if wanted("verify"):
                verify(bench, names["data"], data)
            if wanted("memory"):
                memory(bench, names["sparse"], sparse)
            return bench.rows
    finally:
        lab.down()


def allocated(raw: Path, listed: Path) -> Path:
    """The areas of C(raw) that hold data, in whole MiB as VMFS allocates: a file of lines "start length"."""
    size, at, lines = raw.stat().st_size, 0, []
    with raw.open("rb") as f:
        while at < size:
            try:
                found = os.lseek(f.fileno(), at, os.SEEK_DATA)
            except OSError:
                break
            start = found // MIB * MIB
            at = min(size, -(-os.lseek(f.fileno(), found, os.SEEK_HOLE) // MIB) * MIB)
            lines.append(f"{start} {at - start}\n")
    listed.write_text("".join(lines))
    return listed


def fill(path: Path, size: int, data: Path) -> None:
    """A disk of C(size) bytes without a hole: what is data in C(data), again and again."""
    pieces: list[bytes] = []
    with data.open("rb") as f:
        at = 0
        while at < data.stat().st_size and sum(len(piece) for piece in pieces) < 256 * MIB:
            try:
                at = os.lseek(f.fileno(), at, os.SEEK_DATA)
            except OSError:
                break
            f.seek(at)
            pieces.append(f.read(16 * MIB))
            at += 16 * MIB
    with path.open("wb") as out:
        while out.tell() < size:
            for piece in pieces:
                out.write(piece[: size - out.tell()])


def scatter(path: Path, areas: int) -> None:
    """A disk with C(areas) areas of data, each of 64 KiB and followed by as large a hole."""
    block = os.urandom(AREA)
    with path.open("wb") as out:
        out.truncate(2 * areas * AREA)
        for n in range(areas):
            out.seek(2 * n * AREA)
            out.write(n.to_bytes(8, "little") + block[8:])


def two(bench: Bench, name: str, raw: Path) -> None:
    """Two disks at once against one after the other, each from a datastore that gives 150 MB/s."""
    size = raw.stat().st_size
    budget = bench.folder / "budget"
    budget.mkdir(exist_ok=True)
    (budget / "budget.json").write_text(json.dumps({"datastores": {"*": {"rate": 150}}}))
    whole = [bench.disk(name, size, f"two-{n}", datastore=f"ds{n}") for n in (1, 2)]

    def fresh() -> None:
        for n in (1, 2):
            bench.forget(f"two-{n}")

    def at_once() -> float:
        fresh()
        return bench.ours(*whole, budget=str(budget))[0]

    def one_by_one() -> float:
        fresh()
        return sum(bench.ours(disk, budget=str(budget))[0] for disk in whole)

    a, b = in_turns(min(bench.rounds, 3), at_once, one_by_one)
    for n in (1, 2):
        same(bench.folder / f"two-{n}", raw)
    bench.row("two disks of two datastores, 150 MB/s each", "one after the other", a, b, 1.5)
    fresh()


def verify(bench: Bench, name: str, raw: Path) -> None:
    """What reading everything back costs."""

    def copy(how: str) -> Callable[[], float]:
        def one() -> float:
            bench.forget("mine")
            return bench.ours(bench.disk(name, raw.stat().st_size, "mine"), verify=how)[0]

        return one

    a, b = in_turns(bench.rounds, copy("full"), copy("none"))
    bench.row("verification of every byte", "without", a, b, round(1 / 1.5, 2))


def memory(bench: Bench, name: str, raw: Path) -> None:
    """Memory for a sparse disk of 2 TiB, of which 128 MiB are data; the rest is known to be none by the areas that are allocated."""
    listed = bench.folder / "allocated"
    listed.write_text("".join(f"{at * GIB} {MIB}\n" for at in range(0, 2048, 16)))
    bench.forget("mine")
    _seconds, text = bench.ours(bench.disk(name, raw.stat().st_size, "mine", allocated=str(listed)), verify="full")
    bench.row("2 TiB sparse: memory", "200 MiB", text["peak"] / MIB, 200, 1.0, "MiB")
    bench.forget("mine")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--gib", type=int, default=4)
    parser.add_argument("--only", choices=("full", "zeroes", "delta", "areas", "two", "verify", "memory"), action="append")
    options = parser.parse_args()
    work = BUILD / "bench"
    work.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=work, prefix="copy-") as name:
        rows = measure(Path(name), options.rounds, options.gib * GIB, options.only)
    (work / "copy.json").write_text(json.dumps({"rows": rows}, indent=1) + "\n")
    missed = [r["work"] for r in rows if r["ratio"] < r["goal"]]
    print(f"build/bench/copy.json written; below their goal: {', '.join(missed) or 'none'}")


if __name__ == "__main__":
    main()
