# Copyright (c) 2026, ferry.vmware contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""As much of a client as the lab's stand-ins and its tests need: JSON over one TLS connection, verified by the lab's CA."""

from __future__ import annotations

import http.client
import json
import ssl
import threading
from dataclasses import dataclass
from pathlib import Path
from typing import Any

Object = dict[str, Any]


class ApiError(Exception):
    """The server's refusal. C(status) is HTTP's, C(reason) Kubernetes' own word (NotFound, Conflict, Invalid)."""

    def __init__(self, status: int, reason: str, message: str) -> None:
        super().__init__(f"{status} {reason}: {message}")
        self.status = status
        self.reason = reason


@dataclass(frozen=True)
class Kind:
    """Where objects of a kind are found: C(group/version), the plural, and whether they live in namespaces."""

    api: str
    plural: str
    namespaced: bool = True

    def path(self, namespace: str = "", name: str = "", part: str = "") -> str:
        root = f"/api/{self.api}" if "/" not in self.api else f"/apis/{self.api}"
        where = f"/namespaces/{namespace}" if self.namespaced and namespace else ""
        return root + where + f"/{self.plural}" + (f"/{name}" if name else "") + (f"/{part}" if part else "")


NAMESPACE = Kind("v1", "namespaces", namespaced=False)
SECRET = Kind("v1", "secrets")
CLAIM = Kind("v1", "persistentvolumeclaims")
STORAGE_CLASS = Kind("storage.k8s.io/v1", "storageclasses", namespaced=False)
VM = Kind("kubevirt.io/v1", "virtualmachines")
ATTACHMENT = Kind("k8s.cni.cncf.io/v1", "network-attachment-definitions")
CRD = Kind("apiextensions.k8s.io/v1", "customresourcedefinitions", namespaced=False)
FORKLIFT = "forklift.konveyor.io/v1beta1"
IMPORTER = "migration.harvesterhci.io/v1beta1"
HARVESTER = "harvesterhci.io/v1beta1"


class Api:
    """A connection to an API server by a token. Threads share it; one request at a time."""

    def __init__(self, port: int, ca_file: Path, token: str) -> None:
        self.token = token
        self._lock = threading.Lock()
        context = ssl.create_default_context(cafile=str(ca_file))
        self._connection = http.client.HTTPSConnection("127.0.0.1", port, timeout=30, context=context)

    def call(self, method: str, path: str, body: Object | None = None, content: str = "application/json") -> Object:
        """One request; raises ApiError for a refusal, OSError where nothing answers."""
        data = None if body is None else json.dumps(body).encode()
        headers = {"Authorization": f"Bearer {self.token}", "Accept": "application/json", "Content-Type": content}
        with self._lock:
            try:
                try:
                    status, text = self._exchange(method, path, data, headers)
                except http.client.RemoteDisconnected:
                    # A connection that was idle is closed by the server, unasked: the request was not looked at.
                    self._connection.close()
                    status, text = self._exchange(method, path, data, headers)
            except http.client.HTTPException as e:
                self._connection.close()
                raise ConnectionError(f"{method} {path}: {e!r}") from e
            except OSError:
                self._connection.close()
                raise
        try:
            found = json.loads(text)
        except ValueError:
            found = {"message": text.decode("utf-8", "replace")[:200]}
        if status >= 400:
            raise ApiError(status, str(found.get("reason", "")), str(found.get("message", "")))
        return dict(found)

    def _exchange(self, method: str, path: str, data: bytes | None, headers: dict[str, str]) -> tuple[int, bytes]:
        self._connection.request(method, path, data, headers)
        answer = self._connection.getresponse()
        return answer.status, answer.read()

    def list(self, kind: Kind, namespace: str = "") -> list[Object]:
        return list(self.call("GET", kind.path(namespace))["items"])

    def get(self, kind: Kind, namespace: str, name: str) -> Object | None:
        """The object, or None where there is none."""
        try:
            return self.call("GET", kind.path(namespace, name))
        except ApiError as e:
            if e.status == 404:
                return None
            raise

    def create(self, kind: Kind, namespace: str, body: Object) -> Object:
        """Made with strict validation: a field that the schema does not know is refused."""
        return self.call("POST", kind.path(namespace) + "?fieldValidation=Strict", body)

    def patch(self, kind: Kind, namespace: str, name: str, body: Object, part: str = "") -> Object:
        """A JSON merge patch; part C(status) for the status."""
        return self.call("PATCH", kind.path(namespace, name, part), body, "application/merge-patch+json")

    def replace_status(self, kind: Kind, found: Object, status: Object) -> Object:
        """Set the whole status of an object as it was read; somebody's change in between is refused (409)."""
        meta = found["metadata"]
        return self.call("PUT", kind.path(meta["namespace"], meta["name"], "status"), {**found, "status": status})

    def delete(self, kind: Kind, namespace: str, name: str) -> None:
        try:
            self.call("DELETE", kind.path(namespace, name))
        except ApiError as e:
            if e.status != 404:
                raise

    def close(self) -> None:
        self._connection.close()
