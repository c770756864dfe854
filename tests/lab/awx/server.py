# Copyright (c) 2026, ferry.vmware contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The server: AWX's paths, log-ins and lists over the objects of the store."""

from __future__ import annotations

import base64
import contextlib
import json
import re
import ssl
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

from . import rules
from .store import RECORDED, UNIFIED, WHEN, Object, Refusal, Store

USER, PASSWORD, TOKEN = "admin", "not-a-secret", "a-token-of-the-test"
#: Lists of other objects that an object has, and what their objects are.
LINKED = {
    "credentials": "credentials",
    "labels": "labels",
    "instance_groups": "instance_groups",
    "success_nodes": "workflow_job_template_nodes",
    "failure_nodes": "workflow_job_template_nodes",
    "always_nodes": "workflow_job_template_nodes",
    "notification_templates_started": "notification_templates",
    "notification_templates_success": "notification_templates",
    "notification_templates_error": "notification_templates",
    "notification_templates_approvals": "notification_templates",
    "teams": "teams",
    "users": "users",
}


class Awx:
    """One AWX. C(failing): inventory sources by name, and the explanation with which their updates end."""

    def __init__(self, playbooks: list[str], drop: dict[str, list[str]] | None = None) -> None:
        self.store = Store(drop)
        self.playbooks = playbooks
        self.failing: dict[str, str] = {}
        self.requests: list[tuple[str, str, Any]] = []
        self.launched: list[tuple[str, Object]] = []
        self.lock = threading.Lock()
        self.url = ""

    def answer(self, method: str, path: str, query: str, body: Any) -> tuple[int, Any]:
        """What AWX answers: a status and a body (None: an empty one)."""
        with self.lock:
            self.requests.append((method, f"{path}?{query}" if query else path, body))
            try:
                return self._answer(method, path.strip("/").split("/"), query, body)
            except Refusal as e:
                return e.status, e.body

    def _answer(self, method: str, parts: list[str], query: str, body: Any) -> tuple[int, Any]:
        kind, rest = parts[0], parts[1:]
        if kind == "ping":
            return 200, {"ha": False, "version": RECORDED["version"], "active_node": "awx"}
        if kind == "config":
            return 200, {"version": RECORDED["version"], "license_info": {"license_type": "open"}}
        if kind == "me":
            return 200, {"count": 1, "results": [{"id": 1, "username": USER, "is_superuser": True}]}
        if kind == "tokens":
            return (201, {"id": 7, "token": TOKEN, "type": "o_auth2_access_token"}) if method == "POST" else (204, None)
        if kind == "unified_jobs":
            return 200, _listed([self._shown(o) for o in self.store.all("jobs")])
        if kind == "roles" and len(rest) == 2:
            return self._links(method, kind, int(rest[0]), rest[1], body)
        if kind not in (
            *RECORDED["kinds"],
            *UNIFIED,
            *LINKED.values(),
            "unified_job_templates",
            "project_updates",
            "inventory_updates",
            "jobs",
        ):
            raise Refusal(404, {"detail": "The requested resource could not be found."})
        if not rest:
            return self._kind(method, kind, query, body)
        number = int(rest[0])
        return self._one(method, kind, number, body) if len(rest) == 1 else self._part(method, kind, number, rest[1], body)

    def _kind(self, method: str, kind: str, query: str, body: Any) -> tuple[int, Any]:
        if method == "OPTIONS":
            gone = self.store.drop.get(kind, [])
            if "*" in gone:
                raise Refusal(404, {"detail": "The requested resource could not be found."})
            shown: Object = {f: {} for f in RECORDED["kinds"][kind]["get"] if f not in gone}
            return 200, {"name": kind, "actions": {"GET": shown, "POST": self.store.fields(kind)}}
        if method == "GET":
            return 200, _listed([self._shown(o) for o in self.store.find(kind, query)])
        return 201, self._shown(self._made(kind, body))

    def _made(self, kind: str, body: Object) -> Object:
        rules.check(self.store, kind, body, None)
        self._unique(kind, body)
        one = self.store.new(kind, {k: v for k, v in body.items() if k != "inputs" or kind != "credentials"})
        self._written(kind, one, body)
        return one

    def _unique(self, kind: str, body: Object) -> None:
        key: dict[str, tuple[str, ...]] = {
            "workflow_job_template_nodes": ("identifier", "workflow_job_template"),
            "inventory_sources": ("name", "inventory"),
        }
        fields = key.get(kind, ("name", "organization") if "organization" in self.store.fields(kind) else ("name",))
        if kind == "credentials":
            fields = ("name", "organization", "credential_type")
        if any(all(o.get(f) == body.get(f) for f in fields) for o in self.store.objects.get(kind, {}).values()):
            if len(fields) == 1:
                raise Refusal(400, {"name": [f"{kind[:-1].capitalize()} with this Name already exists."]})
            words = " and ".join(f.replace("_", " ").capitalize() for f in fields)
            raise Refusal(400, {"__all__": [f"{kind[:-1].replace('_', ' ').capitalize()} with this {words} already exists."]})

    def _written(self, kind: str, one: Object, body: Object) -> None:
        """What follows when an object is made or changed."""
        number = int(one["id"])
        if body.get("organization") and "organization" in one.get("summary_fields", {}):
            owner = self.store.get("organizations", int(body["organization"]))
            one["summary_fields"]["organization"] = {"id": owner["id"], "name": owner["name"], "description": ""}
        if kind == "credentials" and "inputs" in body:
            one["inputs"] = rules.hide(self.store, one, body["inputs"])
        if kind == "credential_types" and one.get("inputs"):
            for field in one["inputs"].get("fields", []):
                field.setdefault("type", "string")
        if kind == "projects":
            one["_playbooks"] = self.playbooks
            one["scm_revision"] = "0" * 40
            one["summary_fields"]["current_update"] = {"id": self._update("project_updates", number, ""), "status": "pending"}
        if kind == "inventory_sources" and "_tried" not in one:
            one |= {"status": "never updated", "_tried": False}
        if kind == "workflow_job_template_nodes" and one.get("unified_job_template"):
            target = int(one["unified_job_template"])
            found = next(k for k in self.store.objects if target in self.store.objects[k])
            one["related"]["unified_job_template"] = f"/api/v2/{found}/{target}/"
        if kind == "job_templates" and "organization" in body:
            one["organization"] = body["organization"]  # the project's; the field is not the user's to write

    def _one(self, method: str, kind: str, number: int, body: Any) -> tuple[int, Any]:
        if number not in self.store.objects.get(kind, {}):
            model = "".join(w.title() for w in kind.removesuffix("s").split("_"))
            raise Refusal(404, {"detail": f"No {model} matches the given query."})
        one = self.store.get(kind, number)
        if method == "DELETE":
            self.store.delete(kind, number)
            return 204, None
        if method == "PATCH":
            if kind in RECORDED["kinds"]:
                rules.check(self.store, kind, body, one)
                self.store.write(kind, one, {k: v for k, v in body.items() if k != "inputs" or kind != "credentials"})
                self._written(kind, one, body)
            else:
                one |= {k: v for k, v in body.items() if k in one}
            return 200, self._shown(one)
        shown = self._shown(one)
        if kind == "projects":
            shown["summary_fields"].pop("current_update", None)
        return 200, shown

    def _part(self, method: str, kind: str, number: int, part: str, body: Any) -> tuple[int, Any]:
        one = self.store.get(kind, number)
        if part == "survey_spec":
            if method == "POST":
                rules.survey(body)
                self.store.surveys[number] = body
            elif method == "DELETE":
                self.store.surveys.pop(number, None)
            return 200, self.store.surveys.get(number, {}) if method == "GET" else None
        if part == "playbooks":
            return 200, one["_playbooks"]
        if part == "update":
            updates = "project_updates" if kind == "projects" else "inventory_updates"
            explanation = self.failing.get(one["name"], "")
            if kind == "inventory_sources":
                one["status"] = "failed" if explanation else "successful"
            if kind == "projects":
                one["_playbooks"] = self.playbooks
            made = self._update(updates, number, explanation)
            return 202, {**self.store.get(updates, made), "status": "pending"}
        if part == "launch":
            return self._launch(kind, one, body or {})
        if part == "create_approval_template":
            return 201, self._approval(one, body)
        return self._links(method, kind, number, part, body)

    def _update(self, kind: str, parent: int, explanation: str) -> int:
        self.store.last += 1
        job = {
            "id": self.store.last,
            "type": kind[:-1],
            "url": f"/api/v2/{kind}/{self.store.last}/",
            "status": "failed" if explanation else "successful",
            "failed": bool(explanation),
            "job_explanation": explanation,
            "started": WHEN,
            "finished": WHEN,
            "elapsed": 1.0,
            "artifacts": {},
            "created": WHEN,
            "event_processing_finished": True,
            "scm_revision": "0" * 40,
            "parent": parent,
        }
        self.store.objects.setdefault(kind, {})[self.store.last] = job
        return self.store.last

    def _launch(self, kind: str, one: Object, body: Object) -> tuple[int, Any]:
        said = body.get("extra_vars") or {}
        said = json.loads(said or "{}") if isinstance(said, str) else said
        wrong = rules.answers(self.store.surveys.get(int(one["id"]), {}) if one["survey_enabled"] else {}, said)
        if wrong:
            raise Refusal(400, {"variables_needed_to_start": wrong})
        self.launched.append((one["name"], body))
        job = self.store.get("jobs", self._update("jobs", int(one["id"]), ""))
        return 201, {**job, "job": job["id"], "name": one["name"], "ignored_fields": {}}

    def _approval(self, node: Object, body: Object) -> Object:
        self.store.last += 1
        kind = "workflow_approval_templates"
        made = {"id": self.store.last, "type": "workflow_approval_template", "url": f"/api/v2/{kind}/{self.store.last}/", "related": {}}
        made |= {
            **RECORDED["approval"],
            "name": body["name"],
            "description": body.get("description", ""),
            "timeout": body.get("timeout", 0),
        }
        self.store.objects.setdefault(kind, {})[self.store.last] = made
        node["unified_job_template"] = made["id"]
        node["related"]["unified_job_template"] = made["url"]
        return made

    def _links(self, method: str, kind: str, number: int, part: str, body: Any) -> tuple[int, Any]:
        if part not in LINKED:
            raise Refusal(404, {"detail": "The requested resource could not be found."})
        there = self.store.linked(kind, number, part)
        if method == "GET":
            return 200, _listed([self._shown(self.store.get(LINKED[part], n)) for n in there])
        target = int(body["id"])
        self.store.get(LINKED[part], target)
        if body.get("disassociate"):
            if target in there:
                there.remove(target)
        elif target not in there:
            if part.endswith("_nodes") and (target == number or self._leads(target, number)):
                raise Refusal(400, {"Error": "Cycle detected."})
            there.append(target)
        if part.endswith("_nodes"):
            self.store.get(kind, number)[part] = list(there)
        return 204, None

    def _leads(self, start: int, end: int) -> bool:
        found = [
            n
            for p in ("success_nodes", "failure_nodes", "always_nodes")
            for n in self.store.linked("workflow_job_template_nodes", start, p)
        ]
        return end in found or any(self._leads(n, end) for n in found)

    def _shown(self, one: Object) -> Object:
        return {k: v for k, v in one.items() if not k.startswith("_")}


def _listed(found: list[Object]) -> Object:
    return {"count": len(found), "next": None, "previous": None, "results": found}


def _handler(awx: Awx) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def _do(self) -> None:
            length = int(self.headers.get("Content-Length") or 0)
            text = self.rfile.read(length)
            where = urlsplit(self.path)
            path = re.fullmatch(r"/api/(?:v2|controller/v2)/(.*)", where.path)
            basic = "Basic " + base64.b64encode(f"{USER}:{PASSWORD}".encode()).decode()
            if path is None:
                status, body = 404, {"detail": "The requested resource could not be found."}
            elif self.headers.get("Authorization") not in (basic, f"Bearer {TOKEN}") and path[1] != "ping/":
                status, body = (
                    401,
                    {"detail": "Authentication credentials were not provided. To establish a login session, visit /api/login/."},
                )
            else:
                status, body = awx.answer(self.command, unquote(path[1]), where.query, json.loads(text) if text else None)
            data = b"" if body is None else json.dumps(body).encode()
            self.send_response(status)
            self.send_header("X-API-Product-Name", "AWX")
            self.send_header("X-API-Product-Version", RECORDED["version"])
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        do_GET = do_POST = do_PATCH = do_DELETE = do_OPTIONS = _do

        def log_message(self, format: str, *args: Any) -> None:
            """Nothing: awx.requests has them."""

    return Handler


@contextlib.contextmanager
def running(playbooks: list[str], tls: tuple[Path, Path] | None = None, drop: dict[str, list[str]] | None = None) -> Iterator[Awx]:
    """An AWX on a free port of loopback, with TLS where C(tls) has a certificate and a key. Its project has C(playbooks)."""
    awx = Awx(playbooks, drop)
    server = ThreadingHTTPServer(("127.0.0.1", 0), _handler(awx))
    server.daemon_threads = True
    if tls:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(*tls)
        server.socket = context.wrap_socket(server.socket, server_side=True)
    awx.url = f"http{'s' if tls else ''}://127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
    thread.start()
    try:
        yield awx
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
