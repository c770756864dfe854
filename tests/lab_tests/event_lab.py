# Copyright (c) 2026, ferry.vmware contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The event source on the lab's vCenter: in this process, or in one of its own that can be killed."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from ansible_collections.ferry.vmware.plugins.module_utils.vsphere import event_feed
from tests.lab.vcenter import VCenter
from tests.lab_tests.vcenter_lab import running

COLLECTION = Path(__file__).resolve().parents[2]
PLUGIN = COLLECTION / "extensions" / "eda" / "plugins" / "event_source" / "vcenter.py"
MODEL = {
    "clusters": [{"name": "C0", "hosts": ["esx1", "esx2"]}],
    "standalone_hosts": ["esx3"],
    "networks": ["VM Network"],
    "datastores": [
        {"name": "shared", "type": "VMFS", "capacity": "10GiB"},
        {"name": "spare", "type": "NFS", "capacity": "10GiB"},
    ],
    "vms": [],
}
GIB = 1 << 30


@contextmanager
def vcenter_of(folder: Path, model: dict[str, Any] | None = None) -> Iterator[VCenter]:
    """A vCenter with the model; stopped at the end."""
    path = folder / "model.json"
    path.write_text(json.dumps(model or MODEL), encoding="utf-8")
    with running(folder, path) as lab:
        yield lab


def arguments(lab: VCenter, mark: Path, **more: Any) -> dict[str, Any]:
    """The arguments of the source, as a rulebook gives them."""
    env = lab.env()
    said = {
        "hostname": env["VMWARE_HOST"],
        "port": env["VMWARE_PORT"],
        "username": env["VMWARE_USER"],
        "password": env["VMWARE_PASSWORD"],
        "ca_path": env["VMWARE_CA_PATH"],
        "state_file": str(mark),
        "wait": 5,
    }
    return {**said, **more}


def until(what: Callable[[], Any], seconds: float = 30) -> None:
    """Wait until C(what) holds."""
    end = time.monotonic() + seconds
    while not what():
        assert time.monotonic() < end, "it did not come"
        time.sleep(0.02)


class Listener:
    """The source in a thread of this process. C(events): what it has handed on."""

    def __init__(self, args: dict[str, Any]) -> None:
        self.events: list[dict[str, Any]] = []
        self.failure: BaseException | None = None
        self.gate = threading.Event()
        self.gate.set()
        self._args = args
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._task: asyncio.Task[None] | None = None
        self._thread.start()

    async def _put(self, event: dict[str, Any]) -> None:
        while not self.gate.is_set():
            await asyncio.sleep(0.01)
        self.events.append(event)

    def _run(self) -> None:
        async def go() -> None:
            options, path = event_feed.options_of(self._args, {})
            await event_feed.feed(self._put, options, path)

        asyncio.set_event_loop(self._loop)
        self._task = self._loop.create_task(go())
        try:
            self._loop.run_until_complete(self._task)
        except asyncio.CancelledError:
            pass
        except BaseException as e:  # noqa: BLE001 - looked at by the test
            self.failure = e
        self._loop.run_until_complete(self._loop.shutdown_default_executor())
        self._loop.close()

    def of(self, *kinds: str) -> list[dict[str, Any]]:
        return [e for e in list(self.events) if e["kind"] in kinds]

    def texts(self) -> list[str]:
        """Messages of the storm's events."""
        return [e["data"]["message"] for e in list(self.events) if e["type"] == "GeneralUserEvent"]

    def listening(self) -> Listener:
        """Wait until it listens: its first mark is on disk, and it waits for updates."""
        until(lambda: Path(self._args["state_file"]).exists() or self.failure)
        if self.failure is not None:
            raise self.failure
        time.sleep(0.3)  # from the mark to the question that waits there is nothing to look at
        return self

    def stop(self) -> None:
        if self._thread.is_alive() and self._task is not None:
            self._loop.call_soon_threadsafe(self._task.cancel)
        self._thread.join(10)
        assert not self._thread.is_alive()


@contextmanager
def listening(args: dict[str, Any]) -> Iterator[Listener]:
    """A source that listens; stopped at the end."""
    one = Listener(args)
    try:
        yield one.listening()
    finally:
        one.stop()


_CHILD = """
import asyncio, json, runpy, sys
plugin, args = json.loads(sys.stdin.read())
class Queue:
    async def put(self, event):
        sys.stdout.write(json.dumps(event) + "\\n")
        sys.stdout.flush()
asyncio.run(runpy.run_path(plugin)["main"](Queue(), args))
"""


class Child:
    """The plugin's file in a process of its own, run as ansible-rulebook runs it, without the collections in its path."""

    def __init__(self, args: dict[str, Any], out: Path) -> None:
        self.out = out
        self._read = 0
        self._texts: list[str] = []
        env = {k: v for k, v in os.environ.items() if k not in ("PYTHONPATH", "ANSIBLE_COLLECTIONS_PATH")}
        with open(out, "ab") as f:
            self.process = subprocess.Popen([sys.executable, "-c", _CHILD], stdin=subprocess.PIPE, stdout=f, env=env, cwd=out.parent)
        if self.process.stdin is None:
            raise RuntimeError("no pipe")
        self.process.stdin.write(json.dumps([str(PLUGIN), args]).encode())
        self.process.stdin.close()

    def texts(self) -> list[str]:
        """Messages of the storm's events, also those of the processes before this one. What was cut short by a kill does not count."""
        with open(self.out, "rb") as f:
            f.seek(self._read)
            new = f.read()
        whole = new[: new.rfind(b"\n") + 1]
        self._read += len(whole)
        for line in whole.splitlines():
            with contextlib.suppress(ValueError):
                event = json.loads(line[line.rfind(b'{"id"') :])
                self._texts += [event["data"]["message"]] if event["type"] == "GeneralUserEvent" else []
        return self._texts

    def kill(self) -> None:
        self.process.send_signal(signal.SIGKILL)
        self.process.wait()
