# Copyright (c) 2026, ferry.vmware contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A vCloud Director of the tests' own, on free ports; and a client that is urllib, ElementTree and nothing of ours."""

from __future__ import annotations

import base64
import json
import re
import ssl
import time
import urllib.error
import urllib.request
import xml.etree.ElementTree as ET
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.lab.common import Place
from tests.lab.vcloud import CONTROL_OFFSET, HTTPS_OFFSET, VCloud
from tests.lab_tests import vcenter_lab

V = "application/vnd.vmware.vcloud."
RELOCATE = f"{V}relocateVmParams+xml"


def free_base() -> int:
    """A port base whose ports for vCloud are free."""
    return vcenter_lab.free_base((HTTPS_OFFSET, CONTROL_OFFSET))


@contextmanager
def running(folder: Path, model: Path | None = None) -> Iterator[VCloud]:
    """A vCloud Director with this model (default: models/vcloud.yml), stopped at the end; it must not have met anything unforeseen."""
    base = free_base()
    try:
        lab = VCloud(Place(folder / "state", base))
        lab.up(model)
        try:
            yield lab
        finally:
            lab.down()
    finally:
        vcenter_lab.give_back(base)
    assert lab.process.log_file.read_text() == ""


@dataclass
class Answer:
    status: int
    headers: Any
    body: bytes

    @property
    def xml(self) -> ET.Element:
        return ET.fromstring(self.body)

    @property
    def minor(self) -> str:
        return self.xml.get("minorErrorCode", "")

    @property
    def text(self) -> str:
        return self.body.decode()


class _Stay(urllib.request.HTTPRedirectHandler):
    def redirect_request(self, *args: Any) -> None:
        return None


class Rest:
    """Requests with a session; local names of elements, since the namespaces are not what is tested here."""

    def __init__(self, lab: VCloud, version: str = "36.0") -> None:
        self.lab = lab
        self.version = version
        self.token: dict[str, str] = {}
        context = ssl.create_default_context(cafile=str(lab.ca_file))
        self._opener = urllib.request.build_opener(urllib.request.ProxyHandler({}), urllib.request.HTTPSHandler(context=context), _Stay)

    def send(self, method: str, path: str, body: str | None = None, media: str = "", **headers: str) -> Answer:
        """path: of this server, or an href of it."""
        url = path if path.startswith("http") else self.lab.url + path
        request = urllib.request.Request(url, body.encode() if body is not None else None, method=method)
        request.add_header("Accept", f"application/*+xml;version={self.version}")
        for name, value in {**self.token, **headers}.items():
            request.add_header(name, value)
        if media:
            request.add_header("Content-Type", media)
        try:
            with self._opener.open(request, timeout=20) as answer:
                return Answer(answer.status, answer.headers, answer.read())
        except urllib.error.HTTPError as e:
            with e:
                return Answer(e.code, e.headers, e.read())

    def get(self, path: str) -> Answer:
        return self.send("GET", path)

    def log_in(self, user: str = "administrator@System", path: str = "", password: str = "") -> Answer:
        old = float(self.version) < 33
        path = path or ("/api/sessions" if old else "/cloudapi/1.0.0/sessions/provider")
        secret = base64.b64encode(f"{user}:{password or self.lab.place.password()}".encode()).decode()
        answer = self.send("POST", path, "", Authorization=f"Basic {secret}")
        if answer.headers.get("X-VMWARE-VCLOUD-ACCESS-TOKEN"):
            self.token = {"Authorization": f"Bearer {answer.headers['X-VMWARE-VCLOUD-ACCESS-TOKEN']}"}
        elif answer.headers.get("x-vcloud-authorization"):
            self.token = {"x-vcloud-authorization": answer.headers["x-vcloud-authorization"]}
        return answer

    def query(self, kind: str, more: str = "") -> Answer:
        return self.get(f"/api/query?type={kind}&pageSize=128{more}")

    def rows(self, kind: str, more: str = "") -> list[dict[str, str]]:
        answer = self.query(kind, more)
        assert answer.status == 200, answer.text
        return [dict(x.attrib) for x in answer.xml if local(x) != "Link"]

    def names(self, kind: str, more: str = "") -> list[str]:
        return [r["name"] for r in self.rows(kind, more)]

    def vm(self, name: str, container: str | None = None) -> str:
        """The href of a VM."""
        found = [r["href"] for r in self.rows("adminVM") if r["name"] == name and container in (None, r["containerName"])]
        assert len(found) == 1
        return found[0]

    def datastore(self, name: str, vc: str = "vc1") -> str:
        found = [r["href"] for r in self.rows("datastore") if r["name"] == name and r["vcName"] == vc]
        assert len(found) == 1
        return found[0]

    def relocate(self, vm: str, datastore: str, **headers: str) -> Answer:
        body = f'<RelocateParams xmlns="http://www.vmware.com/vcloud/v1.5"><Datastore href="{datastore}"/></RelocateParams>'
        return self.send("POST", f"{vm}/action/relocate", body, RELOCATE, **headers)

    def task(self, accepted: Answer, seconds: float = 10.0) -> ET.Element:
        """The task of an answer when it has ended."""
        assert accepted.status == 202, accepted.text
        end = time.monotonic() + seconds
        while True:
            task = self.get(accepted.headers["Location"]).xml
            if task.get("status") not in ("queued", "preRunning", "running"):
                return task
            assert time.monotonic() < end, task.attrib
            time.sleep(0.02)

    def move(self, vm: str, datastore: str) -> None:
        task = self.task(self.relocate(vm, datastore))
        assert task.get("status") == "success", ET.tostring(task)

    def place(self, vm: str) -> list[str]:
        """The MoRefs of a VM's home and of its disks."""
        answer = self.get(vm).xml
        info = [x for x in answer.iter() if local(x) in ("DatastoreVimObjectRef", "VmDiskDatastores")]
        return [next(x.text or "" for x in ref if local(x) == "MoRef") for ref in info]


def local(element: ET.Element) -> str:
    return element.tag.rpartition("}")[2]


def links(element: ET.Element) -> dict[str, str]:
    return {x.get("rel", ""): x.get("href", "") for x in element if local(x) == "Link"}


def figures(lab: VCloud) -> dict[str, dict[str, Any]]:
    """Of each datastore of vc1 what the control port says."""
    return {d["name"]: d for d in lab.get("/state")["datastores"] if d["vcenter"] == "vc1"}


def total_used(lab: VCloud) -> int:
    return sum(d["used_mb"] for d in figures(lab).values())


def known(lab: VCloud, name: str, container: str | None = None) -> dict[str, Any]:
    """What the control port says of a VM."""
    found = [v for v in lab.get("/vms")["vms"] if v["name"] == name and container in (None, v["container"])]
    assert len(found) == 1
    one: dict[str, Any] = found[0]
    return one


def as_json(answer: Answer) -> dict[str, Any]:
    out: dict[str, Any] = json.loads(answer.body)
    return out


def without_ids(text: str) -> str:
    """A document with its ids made alike."""
    return re.sub(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", "ID", text)
