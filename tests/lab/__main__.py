# Copyright (c) 2026, ferry.vmware contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""``python3 -m tests.lab up|down|status|wipe|build [vcenter] [openstack] [vcloud] [kubernetes]``: the lab's command line."""

from __future__ import annotations

import argparse
import importlib
import shlex
import shutil
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Callable

from . import kubernetes, vcenter, vcloud
from .common import BUILD, LabError, Place, write_private

PARTS = ("vcenter", "openstack", "vcloud")
#: Started and built only by name: its programs take minutes to compile.
ALL_PARTS = (*PARTS, "kubernetes")


class Lab:
    """The parts of one lab, in its place."""

    def __init__(self, place: Place, nova: str | None = None) -> None:
        self.place = place
        self.nova = nova
        self.vcenter = vcenter.VCenter(place)
        self.vcloud = vcloud.VCloud(place)
        self.kubernetes = kubernetes.Kubernetes(place)

    def openstack(self) -> Any:
        """OpenStack's part, imported when it is wanted: it is no part of a lab without it."""
        try:
            part = importlib.import_module("tests.lab.openstack")
        except ModuleNotFoundError as e:
            raise LabError(f"the lab has no OpenStack part: {e}") from e
        return part.OpenStack(self.place.state / "openstack", BUILD / "venv-openstack", self.place.base, hypervisor=self.nova)

    def up(self, parts: list[str], model_file: Path | None) -> None:
        """Start parts at the same time; the first error is raised after all have come to an end.

        The model is vCenter's, or vCloud's where vcenter is not among the parts.
        """
        work: dict[str, Callable[[], None]] = {}
        if "vcenter" in parts:
            work["vcenter"] = lambda: self.vcenter.up(model_file)
        if "openstack" in parts:
            openstack = self.openstack()
            work["openstack"] = lambda: openstack.up()
        if "vcloud" in parts:
            work["vcloud"] = lambda: self.vcloud.up(None if "vcenter" in parts else model_file)
        if "kubernetes" in parts:
            work["kubernetes"] = self.kubernetes.up
        with ThreadPoolExecutor(len(ALL_PARTS)) as pool:
            jobs = {name: pool.submit(start) for name, start in work.items()}
        self.write_env()
        for name, job in jobs.items():
            try:
                job.result()
            except LabError as e:
                raise LabError(f"{name}: {e}") from e

    def env(self) -> dict[str, str]:
        """The environment of clients, of the parts that run."""
        env: dict[str, str] = {}
        if self.vcenter.process.pid() is not None:
            env.update(self.vcenter.env())
        if (self.place.state / "openstack").exists():
            env.update(self.openstack().env())
        if self.vcloud.process.pid() is not None:
            env.update(self.vcloud.env())
        if self.kubernetes.process.pid() is not None:
            env.update(self.kubernetes.env())
        return env

    def write_env(self) -> Path:
        """Write env.sh (0600: it holds passwords) for ``source``."""
        path = self.place.state / "env.sh"
        write_private(path, "".join(f"export {k}={shlex.quote(v)}\n" for k, v in sorted(self.env().items())))
        return path

    def status(self, parts: list[str]) -> list[tuple[str, str]]:
        rows: list[tuple[str, str]] = []
        if "vcenter" in parts:
            rows += self.vcenter.status()
        if "openstack" in parts and (self.place.state / "openstack").exists():
            rows += [row if isinstance(row, tuple) else (str(row), "") for row in self.openstack().status()]
        if "vcloud" in parts:
            rows += self.vcloud.status()
        if "kubernetes" in parts:
            rows += self.kubernetes.status()
        return rows

    def down(self, parts: list[str]) -> None:
        if "vcenter" in parts:
            self.vcenter.down()
        if "openstack" in parts and (self.place.state / "openstack").exists():
            self.openstack().down()
        if "vcloud" in parts:
            self.vcloud.down()
        if "kubernetes" in parts:
            self.kubernetes.down()
        if self.place.state.exists():
            self.write_env()

    def wipe(self, parts: list[str]) -> None:
        """Stop parts and remove their state; all of them: the whole state folder, its CA and password too."""
        self.down(parts)
        for part in parts:
            shutil.rmtree(self.place.state / part, ignore_errors=True)
        if set(parts) == set(ALL_PARTS):
            shutil.rmtree(self.place.state, ignore_errors=True)
        elif self.place.state.exists():
            self.write_env()


def build(parts: list[str]) -> None:
    """Compile the Go programs of parts: the vCenter, and the client that is vCloud's test."""
    if "vcenter" in parts:
        vcenter.build()
    if "vcloud" in parts:
        vcloud.build_client()
    if "kubernetes" in parts:
        kubernetes.build()


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python3 -m tests.lab", description="The lab of ferry.vmware: real protocols on loopback.")
    parser.add_argument("command", choices=("up", "down", "status", "wipe", "build"))
    parser.add_argument(
        "parts", nargs="*", metavar="PART", help=f"{' or '.join(ALL_PARTS)}; all when none is named, but up and build leave out kubernetes"
    )
    parser.add_argument(
        "--model", type=Path, help="the inventory of vCenter (default tests/lab/models/demo.yml), or of vcloud without it (vcloud.yml)"
    )
    parser.add_argument("--nova", choices=("fake", "libvirt"), help="what a new OpenStack runs its servers on (default: fake)")
    args = parser.parse_args(argv)
    parts = args.parts or list(PARTS if args.command in ("up", "build") else ALL_PARTS)
    unknown = [p for p in parts if p not in ALL_PARTS]
    if unknown:
        parser.error(f"no part {', '.join(unknown)}: choose from {', '.join(ALL_PARTS)}")
    try:
        lab = Lab(Place.from_environment(), args.nova)
        if args.command == "up":
            lab.up(parts, args.model)
            path = lab.place.state / "env.sh"
            shown = path.relative_to(BUILD.parent) if path.is_relative_to(BUILD.parent) else path
            for row in lab.status(parts):
                print(*row)
            print(f"source {shown}")
        elif args.command == "status":
            for row in lab.status(parts):
                print(*row)
        elif args.command == "build":
            build(parts)
        elif args.command == "down":
            lab.down(parts)
        else:
            lab.wipe(parts)
    except LabError as e:
        print(f"lab: {e}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
