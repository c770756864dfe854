# Copyright (c) 2026, ferry.vmware contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""``python3 -m tests.lab.kubernetes CONFIG``: the stand-ins' process. CONFIG is JSON (0600): port, control_port, ca, token."""

from __future__ import annotations

import copy
import json
import signal
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from .api import Api, ApiError
from .forklift import Forklift
from .harvester import Importer

#: What a test can ask for. README.md beside this file says what each does.
DEFAULTS: dict[str, Any] = {
    "tick_seconds": 0.2,
    "unreachable_providers": [],
    "silent_providers": [],
    "missing_vms": [],
    "vms_without_cbt": [],
    "failing_vms": {},
    "precopy_seconds": 1,
    "hold": "",
    "sources": {},
    "made_wrong": {},
}


class Control(BaseHTTPRequestHandler):
    """GET /state, GET and POST and DELETE /switches."""

    switches: dict[str, Any]
    state: dict[str, Any]

    def _answer(self, status: int, body: dict[str, Any]) -> None:
        data = json.dumps(body).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def do_GET(self) -> None:
        found = {"/state": self.state, "/switches": self.switches}.get(self.path)
        self._answer(200 if found is not None else 404, found if found is not None else {"error": "no such path"})

    def do_POST(self) -> None:
        asked = json.loads(self.rfile.read(int(self.headers.get("Content-Length") or 0)) or b"{}")
        wrong = sorted(set(asked) - set(DEFAULTS)) + [k for k, v in asked.items() if k in DEFAULTS and not isinstance(v, _kinds(k))]
        if self.path != "/switches" or wrong:
            self._answer(400, {"error": f"not a switch, or not of its type: {', '.join(wrong) or self.path}"})
            return
        self.switches.update(asked)
        self._answer(200, self.switches)

    def do_DELETE(self) -> None:
        self.switches.update(copy.deepcopy(DEFAULTS))
        self._answer(200, self.switches)

    def log_message(self, format: str, *args: Any) -> None:
        """Nothing: the log is for what goes wrong."""


def _kinds(name: str) -> tuple[type, ...]:
    return (int, float) if isinstance(DEFAULTS[name], (int, float)) else (type(DEFAULTS[name]),)


def _pass(one: Forklift | Importer) -> bool:
    try:
        one.tick()
    except ApiError as e:
        # Somebody changed or removed an object between our reading and our writing: the next pass sees it as it is.
        if e.status not in (404, 409):
            print(f"{type(one).__name__}: {e}", file=sys.stderr, flush=True)
        return False
    except OSError as e:
        print(f"the API server is away: {e}", file=sys.stderr, flush=True)
        return False
    return True


def main(path: Path) -> int:
    config = json.loads(path.read_text(encoding="utf-8"))
    switches = copy.deepcopy(DEFAULTS)
    state: dict[str, Any] = {"ready": False, "passes": 0}
    handler = type("Handler", (Control,), {"switches": switches, "state": state})
    server = ThreadingHTTPServer(("127.0.0.1", config["control_port"]), handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    api = Api(config["port"], Path(config["ca"]), config["token"])
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_args: stop.set())
    stand_ins = (Forklift(api, switches), Importer(api, switches))
    while not stop.is_set():
        # Not ready before one pass went through: a young API server still says that it initializes its storage.
        passed = [_pass(one) for one in stand_ins]
        state["ready"] = all(passed) or state["ready"]
        state["passes"] += 1
        stop.wait(switches["tick_seconds"])
    return 0


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
