# Copyright (c) 2026, ferry.vmware contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The control port: plain HTTP with JSON, for tests and people. README.md lists its calls."""

from __future__ import annotations

import json
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Callable

from .app import App
from .errors import ControlError
from .faults import KINDS
from .web import Stats, json_bytes

_MOST = 1 << 20


class Control:
    """What the port does; every call gives JSON."""

    def __init__(self, app: App, stats: Stats) -> None:
        self.app = app
        self.stats = stats

    def call(self, method: str, path: str, body: dict[str, Any]) -> dict[str, Any]:
        calls: dict[str, Callable[[dict[str, Any]], dict[str, Any]]] = {
            "GET /state": lambda b: self.state(),
            "GET /vms": lambda b: self.vms(),
            "GET /stats": lambda b: self.statistics(),
            "DELETE /stats": lambda b: self.clear_stats(),
            "GET /faults": lambda b: {"kinds": KINDS, "faults": self.app.faults.listed()},
            "POST /faults": lambda b: {"id": self.app.faults.add(b).id},
            "DELETE /faults": lambda b: self.clear_faults(),
            "GET /switches": lambda b: self.app.switches.as_dict(),
            "POST /switches": self.switch,
            "POST /reset": lambda b: self.reset(),
            "POST /expire": lambda b: {"ended": self.app.sessions.expire_all()},
            "POST /clock": self.clock,
            "POST /datastore": self.datastore,
            "POST /vm": self.vm,
            "POST /abort": lambda b: self.abort(),
        }
        if f"{method} {path}" not in calls:
            raise ControlError(f"no {method} {path}: there are {', '.join(calls)}")
        with self.app.lock:
            self.app.engine.advance()
            return calls[f"{method} {path}"](body)

    def state(self) -> dict[str, Any]:
        app = self.app
        tasks = list(app.engine.tasks.values())
        return {
            "ready": True,
            "public_url": app.base(),
            "versions": app.switches.versions,
            "vms": len(app.world.vms),
            "shadow_vms": len(app.world.shadows),
            "sessions": app.sessions.open,
            "time": app.engine.time,
            "tasks": {s: sum(t.status == s for t in tasks) for s in ("queued", "running", "success", "error", "canceled", "aborted")},
            "running": app.engine.counts(),
            "datastores": [
                {
                    "id": d.id,
                    "name": d.name,
                    "vcenter": d.vc.name,
                    "moref": d.moref,
                    "enabled": d.enabled,
                    "deleted": d.deleted,
                    "total_mb": d.total_mb,
                    "used_mb": d.used_mb,
                    "reserved_mb": d.reserved_mb,
                    "provisioned_mb": d.provisioned_mb,
                    "requested_mb": d.requested_mb,
                    "vms": sum(v.datastore is d for v in app.world.vms.values()),
                    "shadow_vms": sum(s.datastore is d for s in app.world.shadows.values()),
                }
                for d in app.world.datastores.values()
            ],
        }

    def vms(self) -> dict[str, Any]:
        moves: dict[str, int] = {}
        for task in self.app.engine.tasks.values():
            if task.operation_name == "vappRelocateVm":
                moves[task.owner[3]] = moves.get(task.owner[3], 0) + 1
        return {
            "vms": [
                {
                    "id": v.id,
                    "name": v.name,
                    "container": v.container.name,
                    "vdc": v.vdc.name,
                    "org": v.vdc.org.name,
                    "template": v.template,
                    "datastore": v.datastore.name,
                    "vcenter": v.datastore.vc.name,
                    "disks": [d.datastore.name for d in v.disks],
                    "profile": v.profile.name,
                    "base": v.base.id if v.base else None,
                    "size_mb": v.size_mb,
                    "used_mb": v.used_mb,
                    "relocations": moves.get(f"urn:vcloud:vm:{v.id}", 0),
                }
                for v in self.app.world.vms.values()
            ],
            "shadows": [{"primary": s.primary.id, "datastore": s.datastore.name} for s in self.app.world.shadows.values()],
        }

    def statistics(self) -> dict[str, Any]:
        s = self.app.sessions
        return {**self.stats.as_dict(), "logins": s.logins, "logouts": s.logouts, "refused": s.failed, "sessions": s.open}

    def clear_stats(self) -> dict[str, Any]:
        self.stats.clear()
        self.app.sessions.logins = self.app.sessions.logouts = self.app.sessions.failed = 0
        return {}

    def clear_faults(self) -> dict[str, Any]:
        self.app.faults.clear()
        return {}

    def switch(self, body: dict[str, Any]) -> dict[str, Any]:
        self.app.switches.update(body)
        self.app.world.changed()
        self.app.engine.clock.now()
        return self.app.switches.as_dict()

    def reset(self) -> dict[str, Any]:
        self.app.reset()
        self.app.faults.clear()
        self.stats.clear()
        return {}

    def clock(self, body: dict[str, Any]) -> dict[str, Any]:
        """{"forward": seconds}"""
        seconds = body.get("forward")
        if not isinstance(seconds, (int, float)) or seconds < 0:
            raise ControlError("forward must be seconds")
        self.app.engine.clock.put_forward(float(seconds))
        return {"time": self.app.engine.advance()}

    def datastore(self, body: dict[str, Any]) -> dict[str, Any]:
        """{"name", "vcenter"?, "enabled"?, "deleted"?, "free_mb"?}: free_mb sets the total so that so much is free."""
        found = [d for d in self.app.world.datastores.values() if d.name == body.get("name") and body.get("vcenter") in (None, d.vc.name)]
        if len(found) != 1:
            raise ControlError(f"{len(found)} datastores are named {body.get('name')}")
        d = found[0]
        d.enabled = bool(body.get("enabled", d.enabled))
        d.deleted = bool(body.get("deleted", d.deleted))
        if "free_mb" in body:
            d.total_mb = d.used_mb + d.reserved_mb + int(body["free_mb"])
        self.app.world.changed()
        return {}

    def vm(self, body: dict[str, Any]) -> dict[str, Any]:
        """{"id", "name"?, "host"?, "disk"?, "datastore"?}: rename a VM, or put one of its disks on another datastore behind vCD's back."""
        vm = self.app.world.vms.get(str(body.get("id")))
        if vm is None:
            raise ControlError(f"no VM {body.get('id')}")
        vm.name = str(body.get("name", vm.name))
        vm.host = str(body.get("host", vm.host))
        if "disk" in body:
            target = next((d for d in self.app.world.datastores.values() if d.name == body.get("datastore") and d.vc is vm.vdc.vc), None)
            if target is None or not 0 <= int(body["disk"]) < len(vm.disks):
                raise ControlError("no such disk or datastore")
            self.app.world.charge(vm, -1)
            vm.disks[int(body["disk"])].datastore = target
            self.app.world.charge(vm)
        self.app.world.changed()
        return {}

    def abort(self) -> dict[str, Any]:
        """All tasks end as aborted, as at a restart of the cell."""
        open_tasks = self.app.engine.open_count
        self.app.engine.abort_all((500, "TASK_ABORTED", "The cell was restarted."))
        return {"aborted": open_tasks}


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: ControlServer

    def log_message(self, format: str, *args: Any) -> None:
        """Nothing."""

    def _go(self) -> None:
        status = 200
        try:
            length = int(self.headers.get("Content-Length") or 0)
            body = json.loads(self.rfile.read(min(length, _MOST)) or b"{}")
            if not isinstance(body, dict):
                raise ControlError("a JSON object is wanted")
            answer = self.server.control.call(self.command, self.path, body)
        except (ControlError, ValueError, TypeError) as e:
            status, answer = 400, {"error": str(e)}
        data = json_bytes(answer)
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    do_GET = do_POST = do_DELETE = _go


class ControlServer(ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self, address: tuple[str, int], control: Control) -> None:
        self.control = control
        super().__init__(address, _Handler)
