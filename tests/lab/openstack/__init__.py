# Copyright (c) 2026, ferry.vmware contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Real OpenStack on loopback for the lab: Keystone, Glance, Cinder, Placement, Nova (its fake driver, or libvirt) and Neutron.

SQLite, no message broker, no root. README.md beside this file says what is real and what a conversion host needs.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Iterable, Iterator, Sequence

from ..common import LabError, Process, port_is_free, write_private
from . import config, libvirt, services, world
from .layout import HYPERVISORS, NEEDS, SERVICES, Layout
from .rest import answers
from .snapshot import Snapshot

# The longest first: as many run at a time as there are processors.
_PREPARE = ("keystone", "nova", "neutron", "cinder", "glance", "placement")
_START_TIMEOUT = 240.0  # seconds; it takes 7 on an idle machine
# What setting up writes; a set-up that was cut short is thrown away and done again.
_SET_UP = ("db", "keystone", "glance", "cinder", "placement", "nova", "neutron", "log")


class OpenStack:
    """The OpenStack of one lab.

    *state* is its folder, *venv* the one with the OpenStack services, *base* the port of Keystone; Glance, Cinder,
    Placement, Nova and Neutron follow on the next five. *cache* (default: beside *venv*) keeps the databases of a new
    lab for the next one. *hypervisor* (one of HYPERVISORS, default: what the state was set up with, else "fake") is what
    Nova runs servers on. Whatever fails raises LabError with the log to look at.
    """

    def __init__(self, state: Path, venv: Path, base: int, cache: Path | None = None, hypervisor: str | None = None) -> None:
        if hypervisor not in (None, *HYPERVISORS):
            raise LabError(f"no hypervisor {hypervisor}: choose from {', '.join(HYPERVISORS)}")
        self._layout = Layout(Path(state).absolute(), Path(venv).absolute(), base)
        self._processes = {name: Process(self._layout.state / "run", name) for name in SERVICES}
        self._libvirtd = Process(self._layout.state / "run", "libvirtd")
        self._cache = cache or self._layout.venv.parent / "cache"
        self._hypervisor = hypervisor

    def up(self, services: Sequence[str] | None = None) -> None:
        """Start the services (all, or those named with what they need) and return when they answer.

        An empty state is set up first. Services that run already are left alone.
        """
        wanted = _with_needs(services or SERVICES)
        if not Path(self._layout.program("uwsgi")).exists():
            raise LabError(f"{self._layout.venv} has no OpenStack services: make venv-openstack")
        with self._locked():
            self._settle_hypervisor()
            self._settle_ports()
            config.write(self._layout)
            if not self._set_up_marker.exists():
                self._set_up()
            self._start(wanted)

    def down(self) -> None:
        """Stop all services; the state stays."""
        with self._locked():
            self._stop(SERVICES)
            libvirt.stop(self._layout, self._libvirtd)

    def wipe(self) -> None:
        """Stop all services and delete the state."""
        self.down()
        shutil.rmtree(self._layout.state)

    def start_service(self, name: str) -> None:
        """Start one service that was stopped, without those it needs."""
        with self._locked():
            self._start([_known(name)])

    def stop_service(self, name: str) -> None:
        """Stop one service: its port refuses connections until start_service() or up()."""
        with self._locked():
            self._stop([_known(name)])

    def status(self) -> list[tuple[str, str]]:
        """Of each service, its name and what a person wants to know of it."""
        rows = []
        for name, process in self._processes.items():
            pid, url = process.pid(), self._layout.url(name)
            said = "stopped" if pid is None else f"running, pid {pid}, {url}" if answers(url) else f"pid {pid} does not answer, {url}"
            rows.append((name, said))
        if self._layout.hypervisor == "libvirt":
            pid = self._libvirtd.pid()
            rows.append(("libvirtd", "stopped" if pid is None else f"running, pid {pid}, {libvirt.uri(self._layout)}"))
        return rows

    def env(self) -> dict[str, str]:
        """What a user of this cloud sets: the clouds.yaml, the member's cloud in it, and the folder of the shims.

        For tests FERRY_LAB_NOVA, what Nova runs servers on, and with libvirt FERRY_LAB_LIBVIRT, the URI for virsh.
        """
        said = {"OS_CLIENT_CONFIG_FILE": str(self._layout.clouds), "OS_CLOUD": "lab", "FERRY_LAB_SHIM": str(self._layout.shim)}
        said["FERRY_LAB_NOVA"] = self._layout.hypervisor
        if self._layout.hypervisor == "libvirt":
            said["FERRY_LAB_LIBVIRT"] = libvirt.uri(self._layout)
        return said

    @property
    def volumes(self) -> Path:
        """The folder that Cinder exports: volume ID is the raw file volume-ID in it."""
        return self._layout.export

    @property
    def _set_up_marker(self) -> Path:
        return self._layout.state / "set-up"

    @contextmanager
    def _locked(self) -> Iterator[None]:
        """One starter or stopper per state."""
        self._layout.state.mkdir(parents=True, exist_ok=True)
        self._layout.state.chmod(0o700)
        with open(self._layout.state / "lock", "w", encoding="ascii") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            yield

    def _settle_ports(self) -> None:
        """Keystone's catalogue has the ports of the set-up; services at others would not find each other."""
        made_at = self._set_up_marker.read_text(encoding="ascii").strip() if self._set_up_marker.exists() else ""
        if made_at and made_at != str(self._layout.base):
            raise LabError(
                f"OpenStack in {self._layout.state} was set up at ports from {made_at}, not {self._layout.base}: set FERRY_LAB_BASE={made_at},"
                " or wipe it (python3 -m tests.lab wipe openstack)"
            )

    def _settle_hypervisor(self) -> None:
        """A new lab gets the hypervisor that was asked for; one that is there keeps its own, and says so."""
        known, wanted = self._layout.hypervisor, self._hypervisor
        if self._set_up_marker.exists():
            if wanted not in (None, known):
                raise LabError(
                    f"Nova in {self._layout.state} runs servers on {known}, not {wanted}: wipe it (python3 -m tests.lab wipe openstack),"
                    " or set FERRY_LAB_DIR and FERRY_LAB_BASE to a lab of its own"
                )
        elif wanted is not None:
            write_private(self._layout.state / "hypervisor", wanted + "\n")
        if self._layout.hypervisor == "libvirt":
            libvirt.check(self._layout)

    def _set_up(self) -> None:
        self._stop(SERVICES)
        for folder in _SET_UP:
            shutil.rmtree(self._layout.state / folder, ignore_errors=True)
        config.write(self._layout)
        snapshot = Snapshot(self._cache, self._layout.kind)
        if not snapshot.restore(self._layout):
            self._set_up_from_nothing()
            snapshot.save(self._layout)
        self._set_up_marker.write_text(f"{self._layout.base}\n", encoding="ascii")

    def _set_up_from_nothing(self) -> None:
        layout = self._layout
        with ThreadPoolExecutor(os.cpu_count() or 2) as pool:
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
        env = config.environment(self._layout)
        if "nova" in names and self._layout.hypervisor == "libvirt":
            libvirt.start(self._layout, self._libvirtd)
        for name in names:
            if self._processes[name].pid() is None:
                if not port_is_free(self._layout.port(name)):
                    raise LabError(f"port {self._layout.port(name)} for {name} is in use: set FERRY_LAB_BASE to another base")
                self._processes[name].start(services.command(self._layout, name), env, whole_env=True)
        for name in names:
            self._processes[name].wait_ready(partial(answers, self._layout.url(name)), _START_TIMEOUT)

    def _stop(self, names: Iterable[str]) -> None:
        with ThreadPoolExecutor(len(SERVICES)) as pool:
            list(pool.map(lambda name: self._processes[name].stop(), names))


def _known(name: str) -> str:
    if name not in SERVICES:
        raise LabError(f"no service {name}: choose from {', '.join(SERVICES)}")
    return name


def _with_needs(names: Sequence[str]) -> list[str]:
    wanted = {need for name in names for need in (_known(name), *NEEDS[name])}
    return [name for name in SERVICES if name in wanted]
