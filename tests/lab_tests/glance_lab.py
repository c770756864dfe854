# Copyright (c) 2026, ferry.vmware contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A second Glance beside the lab's: small limits, several stores, a database of its own. It asks the lab's Keystone."""

from __future__ import annotations

import configparser
import contextlib
import os
import resource
import socket
import sqlite3
import subprocess
import time
from pathlib import Path
from typing import Any, Iterator

import yaml

from ansible_collections.ferry.vmware.plugins.module_utils.openstack_cloud import client
from tests.lab.openstack import config, services
from tests.lab.openstack.layout import Layout
from tests.lab.openstack.rest import answers

#: Bytes that an image may have, and bytes that a project's images may have together.
CAP, QUOTA = 3 << 20, 5 << 20
STORES = ("files", "fast", "far")


class Glance:
    """A running Glance; C(stop) ends it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        with socket.socket() as one:
            one.bind(("127.0.0.1", 0))
            port = one.getsockname()[1]
        venv = Path(os.environ["FERRY_LAB_SHIM"]).parents[3] / "build" / "venv-openstack"
        self.layout = Layout(folder, venv, port - 1)  # Glance is the second port of a lab
        self.url = f"http://127.0.0.1:{port}"
        self._configure(Path(os.environ["FERRY_LAB_DIR"]) / "openstack")
        self.process: subprocess.Popen[bytes] | None = None
        self.start()

    def _configure(self, lab: Path) -> None:
        conf = configparser.RawConfigParser(strict=False)
        conf.optionxform = str  # type: ignore[assignment,method-assign]  # as its documentation says to keep the case
        conf.read(lab / "glance" / "glance-api.conf")
        conf.remove_option("DEFAULT", "log_file")
        conf.set("DEFAULT", "enabled_backends", ",".join(f"{name}:file" for name in STORES))
        conf.set("DEFAULT", "worker_self_reference_url", self.url)
        conf.set("DEFAULT", "public_endpoint", self.url)
        conf.set("DEFAULT", "node_staging_uri", f"file://{self.folder}/staging")
        conf.set("DEFAULT", "image_size_cap", str(CAP))
        conf.set("DEFAULT", "user_storage_quota", f"{QUOTA}B")
        for name in (*STORES, "os_glance_staging_store", "os_glance_tasks_store"):
            if not conf.has_section(name):
                conf.add_section(name)
            store = "staging" if name == "os_glance_staging_store" else name
            (self.folder / store).mkdir(exist_ok=True)
            conf.set(name, "filesystem_store_datadir", str(self.folder / store))
        # Every request's token is looked at, none is believed for a while.
        conf.set("keystone_authtoken", "token_cache_time", "-1")
        conf.set("database", "connection", f"sqlite:///{self.folder}/glance.sqlite")
        (self.folder / "glance").mkdir()
        with (self.folder / "glance" / "glance-api.conf").open("w") as out:
            conf.write(out)
        with (
            contextlib.closing(sqlite3.connect(lab / "db" / "glance.sqlite")) as theirs,
            contextlib.closing(sqlite3.connect(self.folder / "glance.sqlite")) as ours,
        ):
            theirs.backup(ours)
            for table in ("image_properties", "image_tags", "image_locations", "image_members", "task_info", "tasks", "images"):
                ours.execute(f"DELETE FROM {table}")
            ours.commit()

    def start(self) -> None:
        env = config.environment(self.layout) | {"OS_GLANCE_CONFIG_DIR": str(self.folder / "glance")}
        with (self.folder / "glance.log").open("ab") as log:
            self.process = subprocess.Popen(services.command(self.layout, "glance"), env=env, stdout=log, stderr=log)
        end = time.monotonic() + 120
        while not answers(self.url):
            assert time.monotonic() < end and self.process.poll() is None, (self.folder / "glance.log").read_text()[-2000:]
            time.sleep(0.2)

    def stop(self) -> None:
        if self.process is not None:
            self.process.terminate()
            self.process.wait(30)

    def cloud(self, name: str = "lab") -> dict[str, Any]:
        """The configuration of a cloud whose images are here."""
        known = yaml.safe_load(Path(os.environ["OS_CLIENT_CONFIG_FILE"]).read_text())["clouds"][name]
        return {**known, "image_endpoint_override": self.url}

    def connect(self, name: str = "lab") -> Any:
        return client.connect({"cloud": self.cloud(name)})

    @contextlib.contextmanager
    def full(self, size: int) -> Iterator[None]:
        """Its stores take no file larger than C(size) bytes: the error is that of a full disk."""
        assert self.process is not None
        _soft, hard = before = resource.prlimit(self.process.pid, resource.RLIMIT_FSIZE)
        resource.prlimit(self.process.pid, resource.RLIMIT_FSIZE, (size, hard))
        try:
            yield
        finally:
            resource.prlimit(self.process.pid, resource.RLIMIT_FSIZE, before)

    @contextlib.contextmanager
    def broken(self, store: str = "files") -> Iterator[None]:
        """The folder of a store is gone: Glance answers with an internal error."""
        away = self.folder / f"{store}.away"
        (self.folder / store).rename(away)
        try:
            yield
        finally:
            away.rename(self.folder / store)
