# Copyright (c) 2026, ferry.vmware contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The demonstration: a lab is started, its three VMs are migrated by the playbook that users run, and every byte is compared.

Two of them are shut down and copied. db01 is copied while it runs, and while its guest keeps writing: a process that writes a known
sequence and logs it.

    python3 demo/run.py            again and again; the second time there is nothing to do
    python3 demo/run.py --clean    stops the lab and removes what was made

The comparison shares no code with the collection: it reads the disks from the datastore and the files under Cinder with hashlib,
and for db01 it also carries the writer's log out on the image that the lab began with.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import shlex
import shutil
import subprocess
import sys
import time
import urllib.parse
import urllib.request
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

TOP = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(TOP))

from tests.lab import model as lab_model  # noqa: E402 - the checkout is not on the path before
from tests.lab.vcenter import writer  # noqa: E402 - the checkout is not on the path before

BUILD = TOP / "build"
OUT = BUILD / "demo"
COLLECTIONS = BUILD / "collections"
LAB = Path(os.environ.get("FERRY_LAB_DIR", BUILD / "lab"))
MODEL = TOP / "tests" / "lab" / "models" / "demo.yml"
STEP = 8 << 20
#: The VM whose guest writes, and how fast: MB per second.
BUSY, RATE = "db01", 2.0


class Failed(Exception):
    """Said to the user without a traceback."""


def lab(*words: str) -> None:
    """Run the lab's own command."""
    if subprocess.run([sys.executable, "-m", "tests.lab", *words], cwd=TOP, check=False).returncode:
        raise Failed(f"The lab could not do: {' '.join(words)}")


def lab_environment() -> dict[str, str]:
    """What build/lab/env.sh exports, as a shell understands it."""
    script = f"set -a; . {shlex.quote(str(LAB / 'env.sh'))}; exec {shlex.quote(sys.executable)} -c 'import json, os; print(json.dumps(dict(os.environ)))'"
    found: dict[str, str] = json.loads(subprocess.run(["sh", "-c", script], check=True, capture_output=True, text=True).stdout)
    return found


def playbook_environment() -> dict[str, str]:
    """The environment of ansible-playbook: the lab's servers, the collections, and nothing of the user's Ansible settings."""
    env = {k: v for k, v in lab_environment().items() if not k.startswith("ANSIBLE_")}
    bin_dir = Path(sys.executable).parent
    return env | {
        "PATH": os.pathsep.join([env["FERRY_LAB_SHIM"], str(bin_dir), env["PATH"]]),
        "ANSIBLE_CONFIG": str(TOP / "demo" / "ansible.cfg"),
        "ANSIBLE_COLLECTIONS_PATH": str(COLLECTIONS),
    }


def migrate(arguments: list[str]) -> dict[str, Any]:
    """Run the playbook; the report's JSON."""
    report = OUT / "report.json"
    command = [
        str(Path(sys.executable).parent / "ansible-playbook"),
        "ferry.vmware.migrate",
        *("-i", str(TOP / "demo" / "inventory")),
        *("-e", "ferry_wave=demo"),
        *(
            "-e",
            json.dumps({"ferry_ledger": str(OUT / "ledger"), "ferry_report": str(OUT / "report.html"), "ferry_report_json": str(report)}),
        ),
        *arguments,
    ]
    if subprocess.run(command, cwd=TOP, env=playbook_environment(), check=False).returncode:
        raise Failed("The playbook failed; what it said is above. The lab is still up: mend it and run make demo again.")
    found: dict[str, Any] = json.loads(report.read_text())
    return found


def control(path: str, **query: str) -> Any:
    """What the control port of the lab's vCenter answers."""
    url = f"{lab_environment()['FERRY_VCENTER_CONTROL']}{path}?{urllib.parse.urlencode(query)}"
    with urllib.request.urlopen(url, timeout=600) as answer:
        return json.load(answer)


@contextmanager
def busy_guest() -> Iterator[None]:
    """The guest of db01 writes until it is shut down; where it is off already, nobody writes."""
    guest = control("/guest", vm=BUSY)
    if not guest["running"]:
        yield
        return
    if not guest["count"]:  # a new lab: what an older one's guest wrote is of no more use
        for old in logs():
            old.unlink()
    log = OUT / f"writes-{len(logs()):03d}.jsonl"
    command = [sys.executable, "-m", "tests.lab.vcenter.writer", "--vm", BUSY, "--seed", str(len(logs()) + 1), "--rate", str(RATE)]
    process = subprocess.Popen([*command, "--log", str(log)], cwd=TOP, env=lab_environment(), stdout=subprocess.DEVNULL)
    print(f"{BUSY}: its guest writes {RATE:g} MB/s from now on")
    try:
        yield
        if not control("/guest", vm=BUSY)["running"]:
            process.wait(60)  # it notices by itself, and notes which write was the last
    finally:
        if process.poll() is None:
            process.terminate()
            process.wait(30)


def logs() -> list[Path]:
    """The logs of what the guest wrote, the oldest first."""
    return sorted(OUT.glob("writes-*.jsonl"))


def replayed(image: Path, key: int, length: int) -> str:
    """SHA-256 of a disk as the guest made it: its writes carried out on the image that the lab began with."""
    scratch = OUT / "replayed.raw"
    shutil.copyfile(image, scratch)
    scratch.chmod(0o600)
    try:
        for log, following in zip(logs(), [*logs()[1:], None], strict=True):
            # One that was stopped from outside does not know which write was its last; the one after it does.
            upto = writer.read_log(following)[0][0].seq - 1 if following else None
            writer.replay(scratch, log, upto, disk=key)
        return sha256(scratch, length)
    finally:
        scratch.unlink()


def sha256(path: Path, length: int) -> str:
    """SHA-256 of the first C(length) bytes of a file; shorter is an error."""
    total = hashlib.sha256()
    with open(path, "rb") as f:
        while length:
            data = f.read(min(STEP, length))
            if not data:
                raise Failed(f"{path} is {length} bytes too short")
            total.update(data)
            length -= len(data)
    return total.hexdigest()


def prove(report: dict[str, Any]) -> dict[str, Any]:
    """Compare each volume with the disk at its source; the content of result.json."""
    keys = {(vm["name"], d["label"]): int(d["key"]) for vm in control("/state")["vms"] for d in vm["disks"]}
    images = {vm["name"]: [Path(d["path"]) for d in vm["disks"]] for vm in lab_model.load(MODEL)["vms"]}
    volumes = LAB / "openstack" / "cinder" / "export"
    before = {vm["name"]: vm for vm in json.loads((OUT / "result.json").read_text())["vms"]} if (OUT / "result.json").exists() else {}

    def disk(vm: str, index: int, row: dict[str, Any]) -> dict[str, Any]:
        key, target = keys[vm, row["label"]], volumes / f"volume-{row['volume_id']}"
        with ThreadPoolExecutor(2) as pool:
            source = pool.submit(control, "/guest/disk", vm=vm, disk=str(key), hash="sha256")
            theirs = sha256(target, row["capacity"])
            ours = str(source.result()["sha256"])
        more = {"replayed_sha256": replayed(images[vm][index], key, row["capacity"])} if vm == BUSY else {}
        return more | {
            "label": row["label"],
            "volume_id": row["volume_id"],
            "capacity": row["capacity"],
            "source_sha256": ours,
            "target_sha256": theirs,
            "bytes_read": row["bytes_read"],
            "bytes_skipped": row["bytes_skipped"],
            "bytes_written": row["bytes_written"],
        }

    vms = []
    for result in report["vms"]:
        entry = {
            "name": result["name"],
            "server_id": (result.get("server") or {}).get("id"),
            "seconds": result["seconds"],
            "state": result["state"],
            "strategy": result.get("strategy", "cold"),
            "cycles": result.get("cycles") or [],
            "downtime": result.get("downtime"),
            "disks": [disk(result["name"], i, row) for i, row in enumerate(result["disks"])],
        }
        if result["name"] == BUSY:
            entry["writes"] = sum(len(writer.read_log(log)[0]) for log in logs())
        known = before.get(result["name"])
        if result["state"] == "unchanged" and known and known["server_id"] == entry["server_id"]:
            # Nothing was copied this time: the figures of the run that copied it stay, the proof is today's.
            entry.update({k: known.get(k) for k in ("seconds", "strategy", "cycles", "downtime")})
            figures = {d["volume_id"]: d for d in known["disks"]}
            for row in entry["disks"]:
                row.update({k: v for k, v in figures.get(row["volume_id"], {}).items() if k.startswith("bytes_")})
        vms.append(entry)
    return {"equal": all(same(d) for vm in vms for d in vm["disks"]), "vms": vms}


def same(disk: dict[str, Any]) -> bool:
    """Whether all that is known of a disk's bytes is one digest."""
    return len({disk[k] for k in ("source_sha256", "target_sha256", "replayed_sha256") if k in disk}) == 1


def say(result: dict[str, Any], seconds: float) -> None:
    """The end of the demonstration: the proof, and where to look."""
    print("\nEvery byte, read from the disk on the datastore and from the volume's file (sha256):")
    for vm in result["vms"]:
        for d in vm["disks"]:
            sign = "=" if same(d) else "DIFFERS FROM"
            print(f"  {vm['name']} · {d['label']}: {d['source_sha256'][:16]}… {sign} {d['target_sha256'][:16]}…  ({d['capacity']:,} bytes)")

        if vm.get("writes") and vm.get("downtime"):
            print(
                f"  {vm['name']}: its guest made {vm['writes']:,} writes during {len(vm['cycles'])} cycles, and was away for"
                f" {vm['downtime']['seconds']:.0f} s. Carried out on the image that the lab began with, they give the same digests."
            )

    def here(path: Path) -> str:
        return os.path.relpath(path)

    env = here(LAB / "env.sh")
    print(f"""
{len(result["vms"])} VMs in {seconds:.0f} s. The lab is up:
  report        {here(OUT / "report.html")}
  figures       {here(OUT / "result.json")}
  OpenStack     (. {env}; build/venv-openstack/bin/openstack server list)
  the sources   (. {env}; ANSIBLE_COLLECTIONS_PATH=build/collections build/venv/bin/ansible-inventory -i demo/inventory --graph)
  once more     make demo          nothing left to do: changed=0
  all away      make demo-clean""")


def clean() -> None:
    """Stop the lab and remove what was made; what was installed or built stays for the next time."""
    lab("wipe")
    shutil.rmtree(OUT, ignore_errors=True)
    print(f"Stopped, and removed: {os.path.relpath(LAB)}, {os.path.relpath(OUT)}")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n", maxsplit=1)[0] if __doc__ else None)
    parser.add_argument("--clean", action="store_true", help="stop the lab and remove what the demonstration made")
    options, arguments = parser.parse_known_args()
    started = time.monotonic()
    try:
        if options.clean:
            clean()
            return 0
        OUT.mkdir(parents=True, exist_ok=True)
        lab("up", "vcenter", "openstack", "--model", str(MODEL))
        with busy_guest():
            report = migrate(arguments)
        result = prove(report)
        temp = OUT / "result.json.tmp"
        temp.write_text(json.dumps(result, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
        temp.replace(OUT / "result.json")
        say(result, time.monotonic() - started)
        if not result["equal"]:
            raise Failed("A volume differs from its source.")
    except Failed as e:
        print(f"demo: {e}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
