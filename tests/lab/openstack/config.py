# Copyright (c) 2026, ferry.vmware contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Writes the services' configuration (templates/) and the users' clouds.yaml, and says with which environment they run."""

from __future__ import annotations

import base64
import hashlib
import os
import shutil
from pathlib import Path
from string import Template

from ..common import write_private
from . import libvirt
from .layout import HOST, PACKAGE, REGION, SERVICES, Layout

_FOLDERS = (
    "log",
    "run",
    "db",
    "glance/images",
    "glance/staging",
    "glance/tasks",
    "cinder/export",
    "cinder/mounts",
    "cinder/conversion",
    "nova/state/instances",
    "neutron/state",
)
_CLOUD = """\
  $cloud:
    auth:
      auth_url: $keystone_url/v3
      username: $user
      password: $password
      project_name: $user
      user_domain_id: default
      project_domain_id: default
    region_name: $region
"""
# What a caller may have set for itself must not reach the services: their own OS_*, proxies (all is loopback), Python.
_FOREIGN = ("OS_", "PYTHON", "UWSGI_", "VIRTUAL_ENV")
_PROXIES = ("http_proxy", "https_proxy", "all_proxy", "no_proxy")


def write(layout: Layout) -> None:
    """Everything that the services and the users read, from the templates; the databases are left alone."""
    for folder in _FOLDERS:
        (layout.state / folder).mkdir(parents=True, exist_ok=True)
    for service in SERVICES:
        path = layout.config(service)
        write_private(path, _render(path.name, _values(layout, service)))
    write_private(layout.state / "cinder/shares", f"{HOST}:{layout.export}\n")
    # Nova's WSGI application looks for it beside its nova.conf.
    shutil.copy(layout.venv / "etc/nova/api-paste.ini", layout.state / "nova/api-paste.ini")
    _write_keys(layout.state / "keystone/fernet")
    _write_keys(layout.state / "keystone/credential")
    write_private(layout.clouds, _clouds(layout))


def environment(layout: Layout) -> dict[str, str]:
    """The environment of every OpenStack process of the lab."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(_FOREIGN) and name.lower() not in _PROXIES}
    path = (str(layout.shim), str(layout.venv / "bin"), kept.get("PATH", os.defpath))
    return kept | {
        "PATH": os.pathsep.join(path),
        "PYTHONPATH": str(PACKAGE / "site"),
        "PYTHONWARNINGS": "ignore",
        "OS_KEYSTONE_CONFIG_DIR": str(layout.state / "keystone"),
        "OS_GLANCE_CONFIG_DIR": str(layout.state / "glance"),
        "OS_PLACEMENT_CONFIG_DIR": str(layout.state / "placement"),
        "OS_NOVA_CONFIG_DIR": str(layout.state / "nova"),
        "OS_NEUTRON_CONFIG_DIR": str(layout.state / "neutron"),
        "OS_NEUTRON_CONFIG_FILES": "neutron.conf",
    }


def _values(layout: Layout, service: str) -> dict[str, str]:
    values = {
        "state": str(layout.state),
        "venv": str(layout.venv),
        "service": service,
        "password": layout.passwords["svc"],
        "keystone_url": layout.url("keystone"),
        "glance_url": layout.url("glance"),
        "cinder_port": str(layout.port("cinder")),
        "database": layout.database_url(service),
        "api_database": layout.database_url("nova_api"),
        # Without root there are no capabilities that a helper could keep; none are needed, see shim/.
        "capabilities": "" if os.geteuid() == 0 else "capabilities =",
        "libvirt_uri": libvirt.uri(layout),
        "volume_key": hashlib.sha256(f"volumes {layout.passwords['svc']}".encode()).hexdigest(),
    }
    values["hypervisor"] = _render(f"nova-{layout.hypervisor}.conf", values)
    for part in ("auth", "privsep", "common"):  # in this order: common holds auth
        values[part] = _render(f"{part}.conf", values)
    return values


def _render(name: str, values: dict[str, str]) -> str:
    return Template((PACKAGE / "templates" / name).read_text()).substitute(values)


def _write_keys(folder: Path) -> None:
    """Fernet keys: 0 is the staged one, 1 the primary (keystone's key repository)."""
    folder.mkdir(parents=True, exist_ok=True)
    folder.chmod(0o700)
    for name in ("0", "1"):
        if not (folder / name).exists():
            write_private(folder / name, base64.urlsafe_b64encode(os.urandom(32)).decode())


def _clouds(layout: Layout) -> str:
    text = "clouds:\n"
    for cloud, user in (("lab", "ferry"), ("lab-admin", "admin")):
        text += Template(_CLOUD).substitute(
            cloud=cloud, user=user, password=layout.passwords[user], keystone_url=layout.url("keystone"), region=REGION
        )
    return text
