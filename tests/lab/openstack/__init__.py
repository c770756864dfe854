# Copyright (c) 2026, ferry.vmware contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Real OpenStack on loopback for the lab: Keystone, Glance, Cinder, Placement, Nova (fake driver) and Neutron.

SQLite, no message broker, no root. See README.md beside this file for what is real and what a conversion host needs.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import socket
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Iterator, Sequence

from . import config, services, world
from .layout import HOST, NEEDS, SERVICES, LabError, Layout
from .processes import Processes
from .rest import answers
from .snapshot import Snapshot

__all__ = ["LabError", "OpenStack", "ServiceStatus"]

# The longest first: two run at a time.
_PREPARE = ("keystone", "nova", "neutron", "cinder", "glance", "placement")
_START_TIMEOUT = 120.0
# What a set-up holds; a set-up that was cut short is thrown away and done again.
_SET_UP = ("db", "keystone", "glance", "cinder", "placement", "nova", "neutron", "log")


@dataclass(frozen=True)
class ServiceStatus:
    """One service: its address, its pid (None: not running) and whether it answers."""

    name: str
    url: str
    pid: int | None
    answers: bool


class OpenStack:
    """The OpenStack of one lab.

    *state* is its folder, *venv* the one with the OpenStack services, *base* the port of Keystone; Glance, Cinder,
    Placement, Nova and Neutron follow on the next five. *cache* keeps the databases of a new lab for the next one.
    """

    def __init__(self, state: Path, venv: Path, base: int, cache: Path | None = None) -> None:
        self._layout = Layout(Path(state).absolute(), Path(venv).absolute(), base)
        self._processes = Processes(self._layout.state / "run", self._layout.state / "log")
        self._snapshot = Snapshot(cache or Path(venv).absolute().parent / "cache")

    def up(self, services: Sequence[str] | None = None) -> None:
        """Start the services (all, or those named with what they need) and return when they answer.

        An empty state is set up first. Services that run already are left alone.
        """
        wanted = _with_needs(services or SERVICES)
        with self._locked():
            config.write(self._layout)
            if not self._set_up_marker.exists():
                self._set_up()
            self._start(wanted)

    def down(self) -> None:
        """Stop all services; the state stays."""
        with self._locked():
            self._processes.stop(self._processes.names())

    def wipe(self) -> None:
        """Stop all services and delete the state."""
        self.down()
        shutil.rmtree(self._layout.state)

    def start_service(self, name: str) -> None:
        """Start one service that was stopped, without looking at what it needs."""
        with self._locked():
            self._start([_known(name)])

    def stop_service(self, name: str) -> None:
        """Stop one service: from then on its port refuses connections."""
        with self._locked():
            self._processes.stop([_known(name)])

    def status(self) -> list[ServiceStatus]:
        """Of all six services."""
        found = []
        for name in SERVICES:
            pid, url = self._processes.pid(name), self._layout.url(name)
            found.append(ServiceStatus(name, url, pid, pid is not None and answers(url)))
        return found

    def env(self) -> dict[str, str]:
        """What a user of this cloud sets: the clouds.yaml, the member's cloud in it, and the folder of the shims."""
        return {"OS_CLIENT_CONFIG_FILE": str(self._layout.clouds), "OS_CLOUD": "lab", "FERRY_LAB_SHIM": str(self._layout.shim)}

    @property
    def volumes(self) -> Path:
        """The folder that Cinder exports: a volume is the file volume-ID in it."""
        return self._layout.state / "cinder/export"

    @property
    def _set_up_marker(self) -> Path:
        return self._layout.state / "set-up"

    @contextmanager
    def _locked(self) -> Iterator[None]:
        """One starter or stopper per state."""
        self._layout.state.mkdir(parents=True, exist_ok=True)
        self._layout.state.chmod(0o700)
        with open(self._layout.state / "lock", "w") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            yield

    def _set_up(self) -> None:
        self._processes.stop(self._processes.names())
        for folder in _SET_UP:
            shutil.rmtree(self._layout.state / folder, ignore_errors=True)
        config.write(self._layout)
        if not self._snapshot.restore(self._layout):
            self._set_up_from_nothing()
            self._snapshot.save(self._layout)
        self._set_up_marker.touch()

    def _set_up_from_nothing(self) -> None:
        layout = self._layout
        with ThreadPoolExecutor(max(2, os.cpu_count() or 2)) as pool:
            jobs = [pool.submit(services.prepare_database, layout, name) for name in _PREPARE]
            for job in jobs:
                job.result()
        self._start(["keystone"])
        world.create_identities(layout)
        self._start(SERVICES)
        world.create_tenant_world(layout)
        deadline = time.monotonic() + _START_TIMEOUT
        while not services.map_compute_host(layout):
            if time.monotonic() > deadline:
                raise LabError(f"nova-compute does not register itself, see {layout.state}/log")
            time.sleep(0.5)

    def _start(self, names: Sequence[str]) -> None:
        """Start those of *names* that do not run, all at once, and wait until every one answers."""
        for name in names:
            if self._processes.pid(name) is None:
                self._processes.stop([name])  # what a killed leader left behind
                _check_free(self._layout.port(name), name)
                self._processes.start(name, services.command(self._layout, name), config.environment(self._layout))
        deadline = time.monotonic() + _START_TIMEOUT
        for name in names:
            while not answers(self._layout.url(name)):
                if self._processes.pid(name) is None or time.monotonic() > deadline:
                    raise LabError(f"{name} does not start:\n{_tail(self._processes.output(name))}")
                time.sleep(0.05)


def _known(name: str) -> str:
    if name not in SERVICES:
        raise LabError(f"no service {name}; there are {', '.join(SERVICES)}")
    return name


def _with_needs(names: Sequence[str]) -> list[str]:
    wanted = {need for name in names for need in (name, *NEEDS[_known(name)])}
    return [name for name in SERVICES if name in wanted]


def _check_free(port: int, name: str) -> None:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, port))
        except OSError as error:
            raise LabError(f"port {port} for {name} is taken by a process that is not this lab's") from error


def _tail(path: Path, size: int = 2000) -> str:
    return path.read_bytes()[-size:].decode(errors="replace") if path.exists() else "(no output)"
