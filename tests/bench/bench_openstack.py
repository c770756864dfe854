# Copyright (c) 2026, ferry.vmware contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""An upload to Glance beside the OpenStack client's, and a VM of three disks from vCenter to a server beside the way of export
(landing.py), in turns; the median counts.

Both uploads send the same flat disk to the same Glance, which starts here with a Keystone of its own. Each is a process of its own every
time, Python's start and the log-in are in its seconds. What Glance then has is compared with the disk before a figure is written.
Writes build/bench/openstack.json.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from ansible_collections.ferry.vmware.plugins.module_utils.openstack_cloud import client, images
from tests.bench.bench_vmdk import in_turns, make_disk, same
from tests.bench.landing import Landing, model
from tests.lab.common import Place
from tests.lab.openstack import OpenStack
from tests.lab.vcenter import VCenter

TOP = Path(__file__).resolve().parents[2]
BUILD = TOP / "build"
MIB, GIB = 1 << 20, 1 << 30
PEER = "openstack image create --file"
EXPORT = "download, qemu-img convert to qcow2, openstack image create, volume from image; disk after disk"
#: What the module does, without Ansible around it: the peer has none either.
OURS = """
import json, sys
from ansible_collections.ferry.vmware.plugins.module_utils.openstack_cloud import upload
same = {"cloud": "lab", "name": "ours", "state": "present", "hypervisor": "kvm", "convert": "auto", "timeout": 600}
result = upload.run({**same, "src": sys.argv[1], "compression_level": int(sys.argv[2]) if sys.argv[2:] else None})
print(json.dumps({"sent": result["bytes_sent"], "id": result["image"]["id"]}))
"""


class Bench:
    """One Glance, one disk, both ways to send it."""

    def __init__(self, disk: Path, env: dict[str, str], level: int | None) -> None:
        self.disk = disk
        self.level = level
        self.env = {**os.environ, **env}
        self.conn = client.connect({"cloud": "lab"})
        self.sent: dict[str, int] = {}

    def forget(self, name: str) -> None:
        for image in images.find(self.conn, name):
            images.delete(self.conn, image)

    def ours(self) -> float:
        self.forget("ours")
        command = [sys.executable, "-c", OURS, str(self.disk), *([] if self.level is None else [str(self.level)])]
        os.sync()
        began = time.monotonic()
        out = subprocess.run(command, env=self.env, check=True, capture_output=True, text=True)
        took = time.monotonic() - began
        self.sent["ours"] = json.loads(out.stdout)["sent"]
        return took

    def theirs(self) -> float:
        self.forget("theirs")
        command = [str(BUILD / "venv-openstack" / "bin" / "openstack"), "image", "create", "--disk-format", "raw"]
        command += ["--container-format", "bare", "--file", str(self.disk), "theirs"]
        env = {k: v for k, v in self.env.items() if k != "PYTHONPATH"}
        os.sync()
        began = time.monotonic()
        subprocess.run(command, env=env, check=True, stdout=subprocess.DEVNULL)
        took = time.monotonic() - began
        self.sent["theirs"] = int(images.find(self.conn, "theirs")[0]["size"])
        return took

    def check(self, folder: Path) -> None:
        """What Glance gives back as either image is the disk."""
        for name, kind in (("ours", "vmdk"), ("theirs", "raw")):
            image = images.find(self.conn, name)[0]
            back, plain = folder / "back", folder / "plain"
            with back.open("wb") as out:
                answer = self.conn.image.get(f"/images/{image['id']}/file", stream=True)
                for block in answer.iter_content(MIB):
                    out.write(block)
            subprocess.run(["qemu-img", "convert", "-f", kind, "-O", "raw", str(back), str(plain)], check=True)
            same(plain, self.disk)
            back.unlink()
            plain.unlink()


def row(work: str, ours: float, theirs: float, unit: str, goal: float, peer: str = PEER) -> dict[str, Any]:
    found = {"work": work, "peer": peer, "ours_value": round(ours, 3), "peer_value": round(theirs, 3), "unit": unit}
    return {**found, "ratio": round(theirs / ours, 2), "goal": goal}


def uploads(folder: Path, size: int, percent: int, rounds: int, base: int, level: int | None) -> list[dict[str, Any]]:
    """The rows of the upload: time and bytes."""
    disk = folder / "disk-flat.raw"
    make_disk(disk, size, percent)
    lab = OpenStack(folder / "lab", BUILD / "venv-openstack", base)
    lab.up(["glance"])
    try:
        os.environ.update(lab.env())
        bench = Bench(disk, lab.env(), level)
        a, b = in_turns(rounds, bench.ours, bench.theirs)
        bench.check(folder)
    finally:
        lab.wipe()
    disk.unlink()
    what = f"upload of a disk of {size / GIB:g} GiB, {percent} % data" + ("" if level is None else f", level {level}")
    return [row(what, a, b, "s", 3.0), row(f"{what}, bytes sent", bench.sent["ours"], bench.sent["theirs"], "B", 8.0)]


def landings(folder: Path, size: int, percent: int, rounds: int, base: int) -> list[dict[str, Any]]:
    """The rows of a VM with three disks: time, and bytes that lie in between."""
    disks = [folder / f"disk{n}.raw" for n in range(3)]
    make_disk(disks[0], size, percent)
    for disk in disks[1:]:
        subprocess.run(["cp", "--sparse=always", str(disks[0]), str(disk)], check=True)
    place = Place(folder / "lab", base)
    vcenter, lab = VCenter(place), OpenStack(place.state / "openstack", BUILD / "venv-openstack", base)
    try:
        vcenter.up(model(folder, disks))
        lab.up()
        env = lab.env()
        os.environ.update(env)
        path = os.pathsep.join([env["FERRY_LAB_SHIM"], os.environ["PATH"]])
        bench = Landing(folder, vcenter, {**env, "PATH": path}, disks, lab.volumes, str(BUILD / "venv-openstack" / "bin" / "openstack"))
        taken = [(bench.ours(), bench.tracked(), bench.theirs()) for _ in range(rounds)]
    finally:
        vcenter.down()
        lab.wipe()
    what = f"a VM of three disks of {size / GIB:g} GiB, {percent} % data, from vCenter to its server"
    whole, staged = sum(disk.stat().st_size for disk in disks), bench.staged
    ours, tracked, theirs = (statistics.median(times) for times in zip(*taken, strict=True))
    rows = [row(what, ours, theirs, "s", 4.0, EXPORT), row(f"{what}, changed block tracking on", tracked, theirs, "s", 4.0, EXPORT)]
    # Ours keeps its ledgers; that theirs needs so much is the figure, in sizes of the VM's disks.
    rows.append(
        {
            **row(f"{what}, bytes in between", staged["ours"], staged["theirs"], "B", 3.0, EXPORT),
            "peer_per_disk_byte": round(staged["theirs"] / whole, 2),
        }
    )
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--size", type=int, default=4096, help="MiB of the disk")
    parser.add_argument("--percent", type=int, default=30, help="of it data")
    parser.add_argument("--disk-size", type=int, default=4096, help="MiB of each of the VM's three disks")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--level", type=int, help="compression_level of our upload, by default the module's default")
    parser.add_argument("--only", choices=["upload", "landing"], help="one of the two")
    parser.add_argument("--base", type=int, default=int(os.environ.get("FERRY_BENCH_BASE", "21800")), help="first port of the lab")
    options = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda _number, _frame: sys.exit("stopped"))  # so that the labs are stopped, too
    (BUILD / "bench").mkdir(parents=True, exist_ok=True)
    rows: list[dict[str, Any]] = []
    if options.only != "landing":
        with tempfile.TemporaryDirectory(dir=BUILD / "bench") as name:
            rows += uploads(Path(name), options.size * MIB, options.percent, options.rounds, options.base, options.level)
    if options.only != "upload":
        with tempfile.TemporaryDirectory(dir=BUILD / "bench") as name:
            rows += landings(Path(name), options.disk_size * MIB, options.percent, options.rounds, options.base)
    (BUILD / "bench" / "openstack.json").write_text(json.dumps({"rows": rows}, indent=2) + "\n")
    for found in rows:
        text = f"{found['ours_value']} {found['unit']}, {found['peer']} {found['peer_value']} {found['unit']}, {found['ratio']} (goal {found['goal']})"
        print(f"{found['work']}: {text}", file=sys.stderr)


if __name__ == "__main__":
    main()
