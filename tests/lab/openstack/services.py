# Copyright (c) 2026, ferry.vmware contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""How each service is started, and the commands that prepare its database."""

from __future__ import annotations

import subprocess
from pathlib import Path

from ..common import LabError
from . import config
from .layout import HOST, PACKAGE, REGION, Layout

_WSGI = {
    "keystone": "keystone.wsgi.api:application",
    "glance": "glance.wsgi.api:application",
    "placement": "placement.wsgi.api:application",
    "neutron": "neutron.wsgi.api:application",
}


def command(layout: Layout, service: str) -> list[str]:
    """The command line that serves *service* on its port."""
    python, programs = layout.program("python"), PACKAGE / "programs"
    if service == "cinder":
        return [python, str(programs / "cinder_all.py"), "--config-file", str(layout.config("cinder"))]
    if service == "nova":
        return [python, str(programs / "nova_all.py"), str(layout.port("nova"))]
    return [
        layout.program("uwsgi"),
        *("--http-socket", f"{HOST}:{layout.port(service)}"),
        *("--module", _WSGI[service], "--need-app", "--lazy-apps"),
        # Placement keeps one SQLite connection per thread and retries nothing.
        *("--processes", "1", "--threads", "1" if service == "placement" else "8", "--enable-threads"),
        *("--buffer-size", "65535", "--socket-timeout", "600"),
        # An image is uploaded in chunks of the client's choice.
        *("--chunked-input-limit", "67108864", "--chunked-input-timeout", "600"),
        *("--add-header", "Connection: close", "--disable-logging", "--die-on-term"),
    ]


def prepare_database(layout: Layout, service: str) -> None:
    """Create the tables of *service*, and for Keystone the first user."""
    conf = ("--config-file", str(layout.config(service)))
    folder = ("--config-dir", str(layout.state / service))
    if service == "keystone":
        _run(layout, "keystone-manage", *folder, "db_sync")
        url = layout.url("keystone") + "/v3"
        _run(
            layout,
            *("keystone-manage", *folder, "bootstrap", "--bootstrap-region-id", REGION),
            *("--bootstrap-public-url", url, "--bootstrap-internal-url", url, "--bootstrap-admin-url", url),
            secret={"OS_BOOTSTRAP_PASSWORD": layout.passwords["admin"]},
        )
    elif service == "glance":
        _run(layout, "glance-manage", *folder, "db_sync")
    elif service == "cinder":
        _run(layout, "cinder-manage", *conf, "db", "sync")
    elif service == "placement":
        _run(layout, "placement-manage", *conf, "db", "sync")
    elif service == "neutron":
        _run(layout, "python", str(PACKAGE / "programs/neutron_schema.py"), *conf)
        _run(layout, "neutron-db-manage", *conf, "stamp", "heads")
    elif service == "nova":
        _run(layout, "nova-manage", *conf, "api_db", "sync")
        _run(layout, "nova-manage", *conf, "cell_v2", "map_cell0", "--database_connection", layout.database_url("nova_cell0"))
        _run(layout, "nova-manage", *conf, "db", "sync")
        _run(layout, "nova-manage", *conf, "cell_v2", "create_cell", "--name", "cell1")


def map_compute_host(layout: Layout) -> bool:
    """Tell Nova's cells of the compute host; false as long as nova-compute has not yet registered itself."""
    said = _run(layout, "nova-manage", "--config-file", str(layout.config("nova")), "cell_v2", "discover_hosts", "--verbose")
    return "Creating host mapping" in said


def hash_password(layout: Layout, password: str) -> str:
    """As Keystone stores it (bcrypt, the rounds of templates/keystone.conf)."""
    program = "import bcrypt, sys; print(bcrypt.hashpw(sys.stdin.buffer.read(), bcrypt.gensalt(4)).decode())"
    result = subprocess.run([layout.program("python"), "-c", program], input=password.encode(), capture_output=True, check=True)
    return result.stdout.decode().strip()


def _run(layout: Layout, program: str, *arguments: str, secret: dict[str, str] | None = None) -> str:
    """Run a program of the services' venv to its end and return what it printed."""
    argv = [layout.program(program), *arguments]
    environment = config.environment(layout) | (secret or {})
    result = subprocess.run(argv, env=environment, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    said = result.stdout.decode(errors="replace")
    if result.returncode:
        log: Path = layout.state / "log" / f"{program}.failed"
        log.write_text(said)
        raise LabError(f"{program} {arguments[-1]} ended with {result.returncode}, see {log}:\n{said[-2000:]}")
    return said
