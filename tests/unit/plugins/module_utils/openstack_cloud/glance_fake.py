# Copyright (c) 2026, ferry.vmware contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A Glance on loopback that keeps images in a dictionary and can refuse, cut and lie."""

from __future__ import annotations

import hashlib
import json
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

from ansible_collections.ferry.vmware.plugins.module_utils.openstack_cloud import glance

from .conftest import PROJECT, FakeCloud

MIB = 1 << 20
BASE = {"name": "centos", "state": "present", "hypervisor": "kvm", "convert": "auto", "timeout": 30}


class FakeGlance:
    def __init__(self, cloud: FakeCloud) -> None:
        self.images: dict[str, dict[str, Any]] = {}
        self.data: dict[str, bytes] = {}
        self.refuse: tuple[int, Any] | None = None
        self.members: dict[str, set[str]] = {}
        self.count = 0
        self.methods = ["glance-direct", "web-download", "copy-image"]
        self.stores: list[str] = []
        self.imports: list[dict[str, Any]] = []
        self.fail_import = False
        self.algorithm = "sha512"
        self.cloud = cloud
        cloud.handler = self.serve

    def serve(self, method: str, path: str, body: bytes) -> tuple[int, Any]:
        parts = [unquote(p) for p in urlsplit(path).path.split("/") if p][1:]
        if parts == ["info", "import"]:
            return 200, {"import-methods": {"value": self.methods}}
        if parts == ["info", "stores"]:
            return (200, {"stores": [{"id": s} for s in self.stores]}) if self.stores else (404, {})
        if parts == ["images"] and method == "GET":
            query = parse_qs(urlsplit(path).query)
            return 200, {"images": [i for i in self.images.values() if i["name"] == query["name"][0]]}
        if parts == ["images"]:
            self.count += 1
            image = {
                "id": f"i{self.count}",
                "status": "queued",
                "owner": PROJECT,
                "tags": [],
                "visibility": "shared",
                "protected": False,
                "min_ram": 0,
            }
            self.images[image["id"]] = {**image, **json.loads(body)}
            return 201, self.images[image["id"]]
        image = self.images.get(parts[1], {})
        if not image:
            return 404, {"message": "No image found"}
        return self.one(method, parts[2:], image, body)

    def one(self, method: str, rest: list[str], image: dict[str, Any], body: bytes) -> tuple[int, Any]:
        if rest[:1] == ["members"]:
            group = self.members.setdefault(image["id"], set())
            if method == "POST":
                group.add(json.loads(body)["member"])
            if method == "DELETE":
                group.discard(rest[1])
            return 200, {"members": [{"member_id": m} for m in group]}
        if rest == ["file"] or rest == ["stage"]:
            if self.refuse:
                return self.refuse
            self.data[image["id"]] = body
            image.update(size=len(body), os_hash_algo=self.algorithm, os_hash_value=hashlib.new(self.algorithm, body).hexdigest())
            if self.stores:
                image["stores"] = self.stores[0]
            image["status"] = "active" if rest == ["file"] else "uploading"
            return 204, b""
        if rest == ["import"]:
            asked = json.loads(body)
            self.imports.append(asked)
            if self.fail_import:
                image["os_glance_failed_import"] = "fast"
                return 202, b""
            image["status"] = "active"
            image.setdefault("size", 5)
            image.setdefault("virtual_size", 5 << 30)
            if asked.get("stores"):
                image["stores"] = ",".join(sorted({*asked["stores"], *filter(None, str(image.get("stores") or "").split(","))}))
            return 202, b""
        if rest == ["tasks"]:
            return 200, {"tasks": [{"message": "no space in fast"}]}
        if method == "DELETE":
            del self.images[image["id"]]
            return 204, b""
        if method == "PATCH":
            for step in json.loads(body):
                key = step["path"][1:].replace("~1", "/").replace("~0", "~")
                if step["op"] == "remove":
                    del image[key]
                else:
                    assert (key in image) == (step["op"] == "replace")
                    image[key] = step["value"]
        return 200, image


def upload(conn: Any, *, check: bool = False, progress: Any = None, **params: Any) -> dict[str, Any]:
    return glance.Upload(conn, {**BASE, **params}, progress or (lambda phase, done, total: None), check=check).run()
