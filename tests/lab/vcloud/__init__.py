# Copyright (c) 2026, ferry.vmware contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The vCloud Director of the lab: starts the server process on a model, knows its environment. README.md beside this file."""

from __future__ import annotations

import fcntl
import hashlib
import json
import sys
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

from .. import ca, vcenter
from ..common import ROOT, LabError, Place, Process, port_is_free, write_private
from . import model

HTTPS_OFFSET = 20
CONTROL_OFFSET = 21
USER = "administrator"
DEFAULT_MODEL = Path(__file__).parents[1] / "models" / "vcloud.yml"


def build_client() -> Path:
    """Build goclient, a client on go-vcloud-director (its go.mod asks for Go 1.26.2; an older Go fetches that), into build/bin."""
    return vcenter.build(name="ferry-vcloud-goclient", source=Path(__file__).parent / "goclient")


class VCloud:
    """One vCloud Director in a lab's state folder."""

    def __init__(self, place: Place) -> None:
        self.place = place
        self.folder = place.state / "vcloud"
        self.process = Process(self.folder, "vcloud")
        self.port = place.base + HTTPS_OFFSET
        self.control_port = place.base + CONTROL_OFFSET

    @property
    def url(self) -> str:
        return f"https://127.0.0.1:{self.port}"

    @property
    def control(self) -> str:
        return f"http://127.0.0.1:{self.control_port}"

    @property
    def ca_file(self) -> Path:
        return self.place.state / "ca.pem"

    def up(self, model_file: Path | None = None) -> None:
        """Start it on a model (default models/vcloud.yml); nothing happens when it runs already.

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
                raise LabError(f"vCloud runs with another model than {model_file}: stop it first (down vcloud)")
            return
        for port in (self.port, self.control_port):
            if not port_is_free(port):
                raise LabError(f"port {port} is in use: set FERRY_LAB_BASE to another base than {self.place.base}")
        _ca, cert, key = ca.ensure(self.place.state)
        config = {
            "port": self.port,
            "control_port": self.control_port,
            "password": self.place.password(),
            "cert": str(cert),
            "key": str(key),
            "model": checked,
        }
        file = self.folder / "config.json"
        write_private(file, json.dumps(config, ensure_ascii=False))
        self.process.log_file.unlink(missing_ok=True)
        self.process.start([sys.executable, "-m", "tests.lab.vcloud", str(file)], cwd=ROOT)
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
        """Stop it; False when it did not run."""
        return self.process.stop()

    def status(self) -> list[tuple[str, str]]:
        pid = self.process.pid()
        if pid is None:
            return [("vcloud", "stopped")]
        return [("vcloud", f"running, pid {pid}, {self.url}, control {self.control}")]

    def env(self) -> dict[str, str]:
        """What clients read from the environment."""
        return {
            "VCD_HOST": "127.0.0.1",
            "VCD_PORT": str(self.port),
            "VCD_USER": USER,
            "VCD_PASSWORD": self.place.password(),
            "VCD_ORG": "System",
            "VCD_CA_PATH": str(self.ca_file),
            "VCD_VALIDATE_CERTS": "true",
            "FERRY_VCLOUD_CONTROL": self.control,
        }

    def _call(self, method: str, path: str, body: dict[str, Any] | None = None) -> dict[str, Any]:
        request = urllib.request.Request(self.control + path, method=method)
        if body is not None:
            request.data = json.dumps(body).encode()
            request.add_header("Content-Type", "application/json")
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        try:
            with opener.open(request, timeout=60) as response:
                answer: dict[str, Any] = json.load(response)
        except urllib.error.HTTPError as e:
            raise LabError(f"{method} {path}: {e.code} {e.read().decode('utf-8', 'replace').strip()}") from e
        return answer

    def get(self, path: str) -> dict[str, Any]:
        """GET of the control port: /state, /vms, /stats, /faults, /switches."""
        return self._call("GET", path)

    def post(self, path: str, **values: Any) -> dict[str, Any]:
        """POST to the control port: /switches, /clock, /datastore, /vm, /expire, /abort, /reset."""
        return self._call("POST", path, values)

    def switch(self, **values: Any) -> dict[str, Any]:
        """Set switches by name."""
        return self.post("/switches", **values)

    def fault(self, kind: str, **options: Any) -> dict[str, Any]:
        """Make something go wrong: see GET /faults for the kinds."""
        return self.post("/faults", kind=kind, **options)

    def clear(self) -> None:
        """Remove all faults and set the statistics to zero."""
        self._call("DELETE", "/faults")
        self._call("DELETE", "/stats")

    def reset(self) -> None:
        """Begin again from the model: no faults, sessions or tasks, switches as they were."""
        self.post("/reset")
