# Copyright (c) 2026, ferry.vmware contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What each request does: versions and log-in by era, queries, reading, relocation, tasks."""

from __future__ import annotations

import json
import re
import threading
import uuid
import xml.etree.ElementTree as ET
from dataclasses import dataclass, field
from email.message import Message
from typing import Any, Callable
from urllib.parse import unquote

from . import model as models
from .engine import Engine, Task
from .entities import Entities, number
from .errors import ApiError, bad, forbidden
from .faults import Faults
from .moves import Caller, Moves
from .query import Queries
from .records import Version
from .sessions import SYSTEM_ORG, Session, Sessions
from .switches import Switches
from .world import Datastore, Org, Profile, Vm
from .xmlout import A, V, error

_VERSION = re.compile(r"version\s*=\s*(\d+\.\d+)")
_LAST_ID = re.compile(r"([0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12})/?$")
_ANY = r"[^/]+"
XML_BODY = 1 << 20  # bytes of a request that are read


@dataclass
class Request:
    method: str
    path: str
    query: str
    headers: Message
    body: bytes = b""
    version: Version = (0, 0)
    session: Session | None = None

    @property
    def who(self) -> Session:
        assert self.session is not None
        return self.session

    @property
    def caller(self) -> Caller:
        return Caller(self.who.user, (self.who.org_id, self.who.org_name))

    @property
    def cloudapi(self) -> bool:
        return self.path.startswith("/cloudapi/")


@dataclass
class Reply:
    status: int = 200
    body: str = ""
    media: str = ""
    headers: dict[str, str] = field(default_factory=dict)


Handler = Callable[..., Reply]


class App:
    """One vCloud Director. Every request is answered under one lock; what takes time is on the tasks' clock."""

    def __init__(self, config: dict[str, Any]) -> None:
        self.config = config
        self.lock = threading.RLock()
        self.faults = Faults()
        self.reset()

    def reset(self) -> None:
        """Begin again from the model: no session, no task, switches as the model has them."""
        self.switches = Switches()
        self.switches.update(self.config["model"]["switches"])
        self.world = models.build(self.config["model"])
        self.engine = Engine(self.switches, self.world.changed)
        self.sessions = Sessions(self.world, self.switches, self.config["password"], lambda: self.engine.time)
        self.entities = Entities(self.world, self.engine, self.switches, self.base)
        self.queries = Queries(self.world, self.engine, self.switches, self.base)
        self.moves = Moves(self.world, self.engine, self.switches, self.faults.task_failure)
        self.routes = self._routes()

    def base(self) -> str:
        """The public base URL that all hrefs carry; it may differ from the address (system settings of vCD)."""
        return self.switches.public_url or f"https://localhost:{self.config['port']}"

    def handle(self, request: Request) -> Reply:
        """The answer, also where it is an error."""
        request_id = str(uuid.uuid4())
        try:
            with self.lock:
                self.engine.advance()
                self.engine.forget()
                reply = self._dispatch(request)
                self.engine.advance()  # a task of no seconds is over at once
        except ApiError as e:
            reply = self._error(request, e, request_id)
        # The request's id is in a header, and in front of the message (seen by users of 5.5 and later [C]).
        reply.headers["X-VMWARE-VCLOUD-REQUEST-ID"] = request_id
        return reply

    def _error(self, request: Request, e: ApiError, request_id: str) -> Reply:
        message = e.message if request.version < (5, 5) else f"[ {request_id} ] {e.message}"
        if request.cloudapi:
            body = json.dumps({"minorErrorCode": e.minor, "message": message, "stackTrace": None})
            return Reply(e.status, body, "application/json", dict(e.headers))
        return Reply(e.status, error(e.status, e.minor, message), f"{V}error+xml", dict(e.headers))

    def _dispatch(self, request: Request) -> Reply:
        path = request.path.rstrip("/")
        if path == "/api/versions" and request.method == "GET":
            return Reply(200, self.entities.versions(), "text/xml")
        methods: set[str] = set()
        for method, pattern, handler, open_to_all in self.routes:
            found = pattern.fullmatch(path)
            if found and method != request.method:
                methods.add(method)
            elif found:
                request.version = self._version(request)
                if not open_to_all:
                    request.session = self.sessions.find(request.headers)
                return handler(request, *(unquote(g) for g in found.groups()))
        if methods:
            raise ApiError(405, "METHOD_NOT_ALLOWED", f"{request.method} is not allowed here.", {"Allow": ", ".join(sorted(methods))})
        raise ApiError(404, "NOT_FOUND", f"There is nothing at {request.path}.")

    def _version(self, request: Request) -> Version:
        """The version of a request, out of any of its Accept headers [D]. Raises 406 for one that is not listed."""
        listed = sorted(map(number, [*self.switches.versions, *self.switches.alpha_versions]))
        found = _VERSION.search(", ".join(request.headers.get_all("Accept") or []))
        if found:
            version = number(found[1])
            if version in listed:
                return version
            raise ApiError(406, "NOT_ACCEPTABLE", f"The request has an invalid accept header: API version {found[1]} is not supported.")
        if self.switches.no_version == "refuse" or not listed:
            raise ApiError(406, "NOT_ACCEPTABLE", "The request has an invalid accept header: no API version.")
        return listed[0] if self.switches.no_version == "lowest" else listed[-1]

    def _routes(self) -> list[tuple[str, re.Pattern[str], Handler, bool]]:
        def route(text: str, handler: Handler, open_to_all: bool = False) -> tuple[str, re.Pattern[str], Handler, bool]:
            method, path = text.split(" ")
            return method, re.compile(path.replace("{id}", f"({_ANY})")), handler, open_to_all

        e = self.entities
        vm = r"/api/(vApp|vAppTemplate)/vm-{id}"
        store = "/api/admin/extension/datastore/{id}"
        return [
            route("POST /api/sessions", self.old_log_in, True),
            route("POST /api/login", self.old_log_in, True),
            route("GET /api/session", lambda r: Reply(200, e.session(r.who), f"{V}session+xml")),
            route("DELETE /api/session", self.old_log_out),
            route("POST /cloudapi/1.0.0/sessions", lambda r: self.log_in(r, False), True),
            route("POST /cloudapi/1.0.0/sessions/provider", lambda r: self.log_in(r, True), True),
            route("GET /cloudapi/1.0.0/sessions/current", lambda r: self.current(r)),
            route("GET /cloudapi/1.0.0/sessions/{id}", self.current),
            route("DELETE /cloudapi/1.0.0/sessions/{id}", self.log_out),
            route("GET /api/query", self.query),
            route("GET /api/org", self.org_list),
            route("GET /api/org/{id}", self.org),
            route("GET /api/admin/org/{id}", self.admin_org),
            route("GET /api/vdc/{id}", self.vdc),
            route("GET /api/admin/vdc/{id}", self.vdc),
            route("GET /api/vdcStorageProfile/{id}", self.profile),
            route("GET /api/admin/vdcStorageProfile/{id}", self.profile),
            route("GET /api/vApp/vapp-{id}", self.container),
            route("GET /api/vAppTemplate/vappTemplate-{id}", self.container),
            route(f"GET {vm}", self.vm),
            route(f"PUT {vm}", self.reconfigure),
            route(f"POST {vm}/action/reconfigureVm", self.reconfigure),
            route(f"POST {vm}/action/relocate", self.relocate),
            route(f"POST {vm}/action/consolidate", lambda r, k, i: self._accepted(self.moves.consolidate(r.caller, self._vm(r, k, i)))),
            route(
                f"GET {vm}/virtualHardwareSection/disks",
                lambda r, k, i: Reply(200, e.disk_items(self._vm(r, k, i)), f"{V}rasdItemsList+xml"),
            ),
            route("GET /api/disk/{id}", self.disk),
            route("GET /api/task/{id}", lambda r, i: Reply(200, e.task(self._task(r, i)), f"{V}task+xml")),
            route("POST /api/task/{id}/action/cancel", self.cancel),
            route("GET /api/admin", lambda r: Reply(200, e.admin(self._orgs(r)), f"{A}vcloud+xml")),
            route("GET /api/admin/extension/vimServer/{id}", self.server),
            route("GET /api/admin/extension", lambda r: self._system(r, e.extension, f"{A}vmwExtension+xml")),
            route("GET /api/admin/extension/datastores", lambda r: self._system(r, e.datastores, f"{A}datastoreList+xml")),
            route("GET /api/admin/extension/vimServerReferences", lambda r: self._system(r, e.servers, f"{A}vmwVimServerReferences+xml")),
            route(f"GET {store}", self.datastore),
            route(f"PUT {store}", self.put_datastore),
            route(f"POST {store}/action/(enable|disable)", self.enable),
            route("POST /api/admin/extension/action/migrateTenant", self.migrate_tenant),
            route("POST /cloudapi/1.0.0/orgVdcStoragePolicies/{id}/migrateStorage", self.migrate_storage),
        ]

    # --- sessions ----------------------------------------------------------------------------------------------------

    def old_log_in(self, request: Request) -> Reply:
        """POST /api/sessions (and /api/login): 1.5 on, deprecated from 33.0, removed in 38.0 [D]. 5.1 answers 200 as 1.5 does."""
        self._until(request, (38, 0))
        request.session = session = self.sessions.log_in(request.headers.get("Authorization"), None)
        headers = {"x-vcloud-authorization": session.token}
        if request.version >= (30, 0):
            headers.update({"X-VMWARE-VCLOUD-ACCESS-TOKEN": session.jwt, "X-VMWARE-VCLOUD-TOKEN-TYPE": "Bearer"})
        return Reply(200, self.entities.session(session), f"{V}session+xml", headers)

    @staticmethod
    def _until(request: Request, gone: Version) -> None:
        if request.version >= gone:
            raise ApiError(404, "NOT_FOUND", f"{request.method} {request.path} is gone from API {gone[0]}.{gone[1]}.")

    @staticmethod
    def _since(request: Request, first: Version) -> None:
        if request.version < first:
            raise ApiError(404, "NOT_FOUND", f"{request.method} {request.path} is there from API {first[0]}.{first[1]} on.")

    def log_in(self, request: Request, provider: bool) -> Reply:
        """POST /cloudapi/1.0.0/sessions for tenants, /sessions/provider for System: 33.0 on [D]."""
        self._since(request, (33, 0))
        session = self.sessions.log_in(request.headers.get("Authorization"), provider)
        headers = {"X-VMWARE-VCLOUD-ACCESS-TOKEN": session.jwt, "X-VMWARE-VCLOUD-TOKEN-TYPE": "Bearer"}
        return Reply(200, self._session_json(session), "application/json", headers)

    def _session_json(self, session: Session) -> str:
        org = {"name": session.org_name, "id": f"urn:vcloud:org:{session.org_id}"}
        return json.dumps(
            {
                "id": f"urn:vcloud:session:{session.id}",
                "site": {"name": "lab", "id": f"urn:vcloud:site:{SYSTEM_ORG.id}"},
                "user": {"name": session.user, "id": f"urn:vcloud:user:{session.org_id}"},
                "org": org,
                "operatingOrg": org,
                "location": f"{session.org_id}@vcd-cell1",
                "roles": ["System Administrator" if session.system else "Organization Administrator"],
                "sessionIdleTimeoutMinutes": max(1, int(self.switches.idle_seconds // 60)),
            }
        )

    def current(self, request: Request, session_id: str = "current") -> Reply:
        self._own(request, session_id)
        return Reply(200, self._session_json(request.who), "application/json")

    def _own(self, request: Request, session_id: str) -> None:
        """/sessions/{id} from 33.0, /sessions/current from 36.0 on [D]; only one's own here."""
        self._since(request, (36, 0) if session_id == "current" else (33, 0))
        if session_id != "current" and session_id.rpartition(":")[2] != request.who.id:
            raise forbidden("No access to that session.")

    def log_out(self, request: Request, session_id: str) -> Reply:
        if session_id == "provider":
            # go-vcloud-director's Disconnect sends DELETE to the URL of its log-in [C]; no document knows that as a log-out.
            if self.switches.provider_log_out == "refuse":
                raise ApiError(405, "METHOD_NOT_ALLOWED", "DELETE is not allowed here.")
        else:
            self._own(request, session_id)
        self.sessions.log_out(request.who)
        return Reply(204)

    def old_log_out(self, request: Request) -> Reply:
        """DELETE /api/session: 204; removed in 38.0 [D]."""
        self._until(request, (38, 0))
        self.sessions.log_out(request.who)
        return Reply(204)

    # --- reading -----------------------------------------------------------------------------------------------------

    def _missing(self, kind: str, key: str) -> ApiError:
        """What does not exist may be answered as what one may not see [D]; a switch."""
        text = f'No access to entity "(com.vmware.vcloud.entity.{kind}:{key})".'
        if self.switches.missing_status == 403:
            return ApiError(403, "ACCESS_TO_RESOURCE_IS_FORBIDDEN", text)
        return ApiError(404, "RESOURCE_NOT_FOUND", text)

    def _find(self, request: Request, kind: str, table: dict[str, Any], key: str, org_id: Callable[[Any], str]) -> Any:
        found = table.get(key)
        if found is None or not (request.who.system or org_id(found) == request.who.org_id):
            raise self._missing(kind, key)
        return found

    def _vm(self, request: Request, kind: str, key: str) -> Vm:
        vm: Vm = self._find(request, "vm", self.world.vms, key, lambda v: v.vdc.org.id)
        if vm.template is not (kind == "vAppTemplate"):
            raise self._missing("vm", key)
        return vm

    def _task(self, request: Request, key: str) -> Task:
        task: Task = self._find(request, "task", self.engine.tasks, key, lambda t: t.org_id)
        return task

    @staticmethod
    def _administrator(request: Request) -> None:
        if not request.who.system:
            raise forbidden()

    def _system(self, request: Request, document: Callable[[], str], media: str) -> Reply:
        self._administrator(request)
        return Reply(200, document(), media)

    def query(self, request: Request) -> Reply:
        """GET /api/query; go-vcloud-director writes a & before the first parameter [C]."""
        given: dict[str, str] = {}
        for pair in request.query.split("&"):
            name, _equals, value = pair.partition("=")
            if name:
                given[unquote(name.replace("+", " "))] = unquote(value.replace("+", " "))
        return Reply(200, *self.queries.answer(request.who, request.version, given))

    def org_list(self, request: Request) -> Reply:
        return Reply(200, self.entities.org_list(self._orgs(request)), f"{V}orgList+xml")

    def _orgs(self, request: Request) -> list[Org]:
        return [o for o in [SYSTEM_ORG, *self.world.orgs.values()] if request.who.system or o.id == request.who.org_id]

    def server(self, request: Request, key: str) -> Reply:
        self._administrator(request)
        found = self._find(request, "vimServer", self.world.servers, key, lambda s: "")
        return Reply(200, self.entities.server(found), f"{A}vmwvirtualcenter+xml")

    def org(self, request: Request, key: str) -> Reply:
        table = {SYSTEM_ORG.id: SYSTEM_ORG, **self.world.orgs}
        return Reply(200, self.entities.org(self._find(request, "org", table, key, lambda o: o.id)), f"{V}org+xml")

    def admin_org(self, request: Request, key: str) -> Reply:
        table = {SYSTEM_ORG.id: SYSTEM_ORG, **self.world.orgs}
        return Reply(200, self.entities.admin_org(self._find(request, "org", table, key, lambda o: o.id)), f"{A}organization+xml")

    def vdc(self, request: Request, key: str) -> Reply:
        vdc = self._find(request, "vdc", self.world.vdcs, key, lambda v: v.org.id)
        return Reply(200, self.entities.vdc(vdc, request.version), f"{V}vdc+xml")

    def profile(self, request: Request, key: str) -> Reply:
        profile = self._find(request, "vdcStorageProfile", self.world.profiles, key, lambda p: p.vdc.org.id)
        return Reply(200, self.entities.profile(profile), f"{V}vdcStorageProfile+xml")

    def container(self, request: Request, key: str) -> Reply:
        c = self._find(request, "vapp", self.world.containers, key, lambda x: x.vdc.org.id)
        return Reply(200, self.entities.container(c, request.who, request.version), f"{V}{'vAppTemplate' if c.template else 'vApp'}+xml")

    def vm(self, request: Request, kind: str, key: str) -> Reply:
        return Reply(200, self.entities.vm(self._vm(request, kind, key), request.who, request.version), f"{V}vm+xml")

    def disk(self, request: Request, key: str) -> Reply:
        return Reply(200, self.entities.disk(self._find(request, "disk", self.world.disks, key, lambda d: d.vdc.org.id)), f"{V}disk+xml")

    def datastore(self, request: Request, key: str) -> Reply:
        self._administrator(request)
        return Reply(200, self.entities.datastore(self._datastore(key)), f"{A}datastore+xml")

    def _datastore(self, key: str) -> Datastore:
        if key not in self.world.datastores:
            raise self._missing("datastore", key)
        return self.world.datastores[key]

    # --- changing ----------------------------------------------------------------------------------------------------

    def _xml(self, request: Request, root: str, media: str) -> ET.Element:
        """The body as XML of that root, in whichever of the two namespaces. Raises 400, and 415 for another media type."""
        given = request.headers.get_content_type() if request.headers.get("Content-Type") else ""
        if given != media.lower() and given not in ("application/xml", "text/xml", "application/*+xml"):
            raise ApiError(415, "UNSUPPORTED_MEDIA_TYPE", f"The Content-Type must be {media}, not {given or 'none'}.")
        if b"<!DOCTYPE" in request.body:
            raise bad("A DOCTYPE is not allowed.")
        try:
            found = ET.fromstring(request.body)
        except ET.ParseError as e:
            raise bad(f"Error parsing request body: {e}") from None
        if _local(found) != root:
            raise bad(f"The body must be {root}, not {_local(found)}.")
        return found

    def _referred(self, element: ET.Element | None, kind: str, table: dict[str, Any]) -> Any:
        """What a reference in a body means: by the id at the end of its href, whatever the host."""
        tail = _LAST_ID.search(element.get("href", "") if element is not None else "")
        if not tail:
            raise bad(f"A reference to a {kind} is required.")
        if tail[1] not in table:
            raise bad(f'There is no {kind} "{tail[1]}".')
        return table[tail[1]]

    def _accepted(self, task: Task) -> Reply:
        """202 with the task, and its href as Location."""
        return Reply(202, self.entities.task(task), f"{V}task+xml", {"Location": self.base() + task.path})

    def relocate(self, request: Request, kind: str, key: str) -> Reply:
        """Since 1.5, deprecated from 5.1, gone from 39.0 (both operations, of vApps and of templates) [D]."""
        if not self.entities.relocatable(request.version):
            raise ApiError(self.switches.relocate_removed_status, "NOT_FOUND", "relocate is gone from API 39.0.")
        self._administrator(request)
        vm = self._vm(request, kind, key)
        body = self._xml(request, "RelocateParams", f"{V}relocateVmParams+xml")
        target = self._referred(next((x for x in body if _local(x) == "Datastore"), None), "datastore", self.world.datastores)
        return self._accepted(self.moves.relocate(request.caller, vm, target, request.version >= (5, 1)))

    def reconfigure(self, request: Request, kind: str, key: str) -> Reply:
        vm = self._vm(request, kind, key)
        body = self._xml(request, "Vm", f"{V}vm+xml")
        given = next((x for x in body if _local(x) == "StorageProfile"), None)
        profile: Profile | None = None
        if given is not None:
            profile = self._referred(given, "storage profile", {p.id: p for p in vm.vdc.profiles})
        return self._accepted(self.moves.reconfigure(request.caller, vm, profile))

    def cancel(self, request: Request, key: str) -> Reply:
        task = self._task(request, key)
        if task.over:
            raise bad(f"The task {key} has ended: {task.status}.")
        self.engine.cancel(task)
        return Reply(204)

    def enable(self, request: Request, key: str, action: str) -> Reply:
        self._administrator(request)
        datastore = self._datastore(key)
        datastore.enabled = action == "enable"
        self.world.changed()
        return Reply(200, self.entities.datastore(datastore), f"{A}datastore+xml")

    def put_datastore(self, request: Request, key: str) -> Reply:
        """PUT of a datastore: Enabled is taken over here, the thresholds are ignored."""
        self._administrator(request)
        datastore = self._datastore(key)
        body = self._xml(request, "Datastore", f"{A}datastore+xml")
        for x in body:
            if _local(x) == "Enabled":
                datastore.enabled = (x.text or "").strip() == "true"
        self.world.changed()
        return Reply(200, self.entities.datastore(datastore), f"{A}datastore+xml")

    def migrate_tenant(self, request: Request) -> Reply:
        """TenantMigrationParams: orgs, sourceDatastores, targetDatastores (29.0 on; POST-MigrateTenant) [D]."""
        self._since(request, (29, 0))
        self._administrator(request)
        body = self._xml(request, "TenantMigrationParams", "application/vnd.vmware.cloud.tenantMigrationParams+xml")
        lists = {_local(x): list(x) for x in body}
        orgs = [self._referred(x, "organization", self.world.orgs) for x in lists.get("orgs", []) if _local(x) == "Org"]
        stores = {
            name: [self._referred(x, "datastore", self.world.datastores) for x in lists.get(name, []) if _local(x) == "Datastore"]
            for name in ("sourceDatastores", "targetDatastores")
        }
        return self._accepted(self.moves.migrate_tenant(request.caller, orgs, stores["sourceDatastores"], stores["targetDatastores"]))

    def migrate_storage(self, request: Request, urn: str) -> Reply:
        """VdcStorageMigrationParams: targetVdcStoragePolicy, entityTypes; 202 with the task in Location (38.1 on) [D]."""
        self._since(request, (38, 1))
        self._administrator(request)
        try:
            body = json.loads(request.body or b"null")
            target_urn = str(body["targetVdcStoragePolicy"]["id"])
            types = [str(t["name"]) for t in body.get("entityTypes") or [{"name": "urn:vcloud:type:vmware:vm"}]]
        except (ValueError, KeyError, TypeError):
            raise bad("VdcStorageMigrationParams with targetVdcStoragePolicy and entityTypes are required.") from None
        if types != ["urn:vcloud:type:vmware:vm"]:
            raise bad(f"Only VMs can be migrated here, not {', '.join(types)}.")
        found = [self.world.profiles.get(x.rpartition(":")[2]) for x in (urn, target_urn)]
        if found[0] is None or found[1] is None:
            raise self._missing("vdcStorageProfile", urn)
        task = self.moves.migrate_policy(request.caller, found[0], found[1])
        return Reply(202, "", "", {"Location": self.base() + task.path})


def _local(element: ET.Element) -> str:
    return element.tag.rpartition("}")[2]
