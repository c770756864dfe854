# Copyright (c) 2026, ferry.vmware contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Where everything of one OpenStack lab is: ports, folders, databases, passwords."""

from __future__ import annotations

import json
import secrets
import socket
from dataclasses import dataclass
from pathlib import Path

from ..common import write_private

HOST = "127.0.0.1"
REGION = "RegionOne"
# The order is the offset of the port from the lab's base.
SERVICES = ("keystone", "glance", "cinder", "placement", "nova", "neutron")
NEEDS: dict[str, tuple[str, ...]] = {
    "keystone": (),
    "glance": ("keystone",),
    "cinder": ("keystone", "glance"),
    "placement": ("keystone",),
    "neutron": ("keystone",),
    "nova": ("keystone", "glance", "cinder", "placement", "neutron"),
}
DATABASES = ("keystone", "glance", "cinder", "placement", "neutron", "nova", "nova_api", "nova_cell0")
USERS = ("admin", "ferry", "svc")
#: What Nova runs its servers on: its own fake driver, or QEMU by libvirt.
HYPERVISORS = ("fake", "libvirt")
PACKAGE = Path(__file__).resolve().parent


@dataclass(frozen=True)
class Layout:
    """The paths and addresses of one lab.

    *state* holds all that this lab writes, *venv* the OpenStack services, *base* is Keystone's port.
    """

    state: Path
    venv: Path
    base: int

    def port(self, service: str) -> int:
        return self.base + SERVICES.index(service)

    def url(self, service: str) -> str:
        return f"http://{HOST}:{self.port(service)}"

    def database(self, name: str) -> Path:
        return self.state / "db" / f"{name}.sqlite"

    def database_url(self, name: str) -> str:
        return f"sqlite:///{self.database(name)}"

    def program(self, name: str) -> str:
        """A console script of the services' venv."""
        return str(self.venv / "bin" / name)

    @property
    def passwords(self) -> dict[str, str]:
        """Of USERS: random, made when first asked for, then those of this state."""
        path = self.state / "passwords.json"
        if not path.exists():
            write_private(path, json.dumps({user: secrets.token_hex(12) for user in USERS}))
        known: dict[str, str] = json.loads(path.read_text())
        return known

    @property
    def export(self) -> Path:
        """The folder that stands for Cinder's NFS server."""
        return self.state / "cinder/export"

    @property
    def clouds(self) -> Path:
        return self.state / "clouds.yaml"

    @property
    def shim(self) -> Path:
        """The folder of mount, umount, mount.nfs and sudo for everything that uses os-brick without root."""
        return PACKAGE / "shim"

    @property
    def hypervisor(self) -> str:
        """One of HYPERVISORS: what this state was set up with."""
        try:
            return (self.state / "hypervisor").read_text().strip()
        except FileNotFoundError:
            return "fake"

    @property
    def kind(self) -> str:
        """What the databases of a new lab depend on: Nova's driver, and by libvirt the host name under which it registers itself."""
        return self.hypervisor if self.hypervisor == "fake" else f"{self.hypervisor} {socket.getfqdn()}"

    def config(self, service: str) -> Path:
        name = "glance-api" if service == "glance" else service
        return self.state / service / f"{name}.conf"
