# Copyright (c) 2026, ferry.vmware contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Names of tags, asked of a server that speaks the Automation API as its reference has it."""

from __future__ import annotations

import http.server
import json
import ssl
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import unquote

import pytest
import trustme

from ansible_collections.ferry.vmware.plugins.module_utils.errors import ServerError
from ansible_collections.ferry.vmware.plugins.module_utils.vsphere.client import Endpoint
from ansible_collections.ferry.vmware.plugins.module_utils.vsphere.tag_names import tags_of

TAGS = {"urn:vmomi:InventoryServiceTag:1:GLOBAL": "gold", "urn:vmomi:InventoryServiceTag:2:GLOBAL": "ラック 7"}
ATTACHED = {"host-1": list(TAGS), "host-2": [next(iter(TAGS))], "host-3": []}


@dataclass
class Automation:
    """What is needed of a session; C(answers): overrides by path; C(asked): requests."""

    endpoint: Endpoint
    ssl_context: ssl.SSLContext
    answers: dict[str, Any] = field(default_factory=dict)
    asked: list[str] = field(default_factory=list)


@pytest.fixture
def server() -> Iterator[Automation]:
    authority = trustme.CA()
    found: list[Automation] = []

    class Handler(http.server.BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, format: str, *args: Any) -> None:
            pass

        def answer(self, value: Any, status: int = 200) -> None:
            data = json.dumps(value).encode()
            self.send_response(status)
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        def handle_one(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            path = unquote(self.path)
            found[0].asked.append(f"{self.command} {path}")
            override = next((v for k, v in found[0].answers.items() if k in path), None)
            if path == "/api/session":
                self.answer("token", 201)
            elif self.headers["vmware-api-session-id"] != "token":
                self.answer({}, 401)
            elif override is not None:
                self.answer(*override)
            elif path.endswith("action=list-attached-tags-on-objects"):
                ids = [o["id"] for o in json.loads(body)["object_ids"] if o["type"] == "HostSystem"]
                self.answer([{"object_id": {"type": "HostSystem", "id": i}, "tag_ids": ATTACHED[i]} for i in ids if ATTACHED.get(i)])
            else:
                self.answer({"name": TAGS[path.rpartition("/")[2]]})

        do_GET = do_POST = do_DELETE = handle_one

    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("127.0.0.1").configure_cert(tls)
    httpd = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    httpd.socket = tls.wrap_socket(httpd.socket, server_side=True)
    client = ssl.create_default_context()
    authority.configure_trust(client)
    found.append(Automation(Endpoint("127.0.0.1", httpd.server_address[1], "user", "word"), client))
    thread = threading.Thread(target=httpd.serve_forever, daemon=True)
    thread.start()
    yield found[0]
    httpd.shutdown()
    httpd.server_close()
    thread.join()


def test_names_by_object(server: Automation) -> None:
    found = tags_of(server, "HostSystem", ["host-1", "host-2", "host-3"])  # type: ignore[arg-type]  # only these two of a session are used
    assert found == {"host-1": {"gold", "ラック 7"}, "host-2": {"gold"}}
    assert server.asked[-1] == "DELETE /api/session"


@pytest.mark.parametrize(
    "answers", [{"list-attached": ({"error": 1}, 403)}, {"list-attached": ([{"x": 1}],)}, {"/tag/urn": ({"id": "x"},)}, {"/tag/urn": ([],)}]
)
def test_answers_of_another_form(server: Automation, answers: dict[str, Any]) -> None:
    server.answers = answers
    with pytest.raises(ServerError) as e:
        tags_of(server, "HostSystem", ["host-1"])  # type: ignore[arg-type]  # only these two of a session are used
    assert e.value.code == "tags"
    assert server.asked[-1] == "DELETE /api/session"
