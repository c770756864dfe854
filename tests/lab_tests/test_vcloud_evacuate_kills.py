# Copyright (c) 2026, ferry.vmware contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The evacuation killed at any point, and gone on with: nothing is moved twice."""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from ansible_collections.ferry.vmware.plugins.module_utils.disk.progress import Progress
from ansible_collections.ferry.vmware.plugins.module_utils.errors import Interrupted
from ansible_collections.ferry.vmware.plugins.module_utils.vcloud import evacuate_journal

from .vcloud_env import Quick, params, switch
from .vcloud_evacuation import COLLECTIONS, SOURCE, TARGETS, go, lab, moved_once, on, session, wanted

__all__ = ["lab", "session"]


VICTIM = """
import json, os, signal, sys, threading
from ansible_collections.ferry.vmware.plugins.module_utils.vcloud import client, evacuate, evacuate_journal, transport
what, point, values = sys.argv[1], int(sys.argv[2]), json.loads(sys.argv[3])
lock, seen = threading.Lock(), {"n": 0}

def counted():
    with lock:
        seen["n"] += 1
        return seen["n"] == point

def die():
    os.kill(os.getpid(), signal.SIGKILL)

exchange = transport.Transport.exchange
def wrapped(self, method, path, **more):
    now = counted() if what in ("before", "after") else what == "posted" and method == "POST" and "relocate" in path and counted()
    if now and what == "before":
        die()
    answer = exchange(self, method, path, **more)
    if now:
        die()
    return answer
transport.Transport.exchange = wrapped

write = os.write
def half(fd, data):
    if what == "torn" and data[8:10] == b" {" and counted():
        write(fd, data[: len(data) // 2])
        die()
    done = write(fd, data)
    if what == "written" and data[8:10] == b" {" and counted():
        die()
    return done
os.write = half

with client.administrator(values["connection"]) as session:
    evacuate.evacuate(session, evacuate.Wanted(**values["wanted"]))
print("ended")
"""


def victim(folder: Path, what: str, point: int) -> str:
    """An evacuation in a process of its own that kills itself at that point; what it printed."""
    values = {"connection": params(), "wanted": {**wanted(folder).__dict__, "targets": list(TARGETS), "canary": ["1"]}}
    env = {**os.environ, "PYTHONPATH": str(COLLECTIONS)}
    command = [sys.executable, "-c", VICTIM, what, str(point), json.dumps(values)]
    done = subprocess.run(command, env=env, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode in (0, -9), done.stderr
    return done.stdout


POINTS = random.Random(6)
KILLS = [
    *(("before", POINTS.randrange(5, 90)) for n in range(3)),
    *(("after", POINTS.randrange(20, 90)) for n in range(3)),
    *(("posted", n) for n in (1, 2, POINTS.randrange(3, 15))),
    *(("torn", n) for n in (1, 2, POINTS.randrange(4, 40))),
    *(("written", POINTS.randrange(3, 40)) for n in range(2)),
]


@pytest.mark.parametrize(("what", "point"), KILLS)
def test_killed_and_gone_on_with(session: Quick, tmp_path: Path, what: str, point: int) -> None:
    switch(task_seconds=0.25)
    assert victim(tmp_path, what, point) == ""
    result = go(session, tmp_path)
    assert result["empty"]
    assert moved_once()
    assert on(SOURCE) == set()
    history = evacuate_journal.history_of((tmp_path / "journal").read_bytes(), "journal")
    assert not [s for s in history.vms.values() if s.open]


def test_killed_again_and_again(session: Quick, tmp_path: Path) -> None:
    for point in (25, 31, 28, 36):
        victim(tmp_path, "after", point)
    assert go(session, tmp_path)["empty"]
    assert moved_once()


def test_the_journal_lost_after_a_kill(session: Quick, tmp_path: Path) -> None:
    switch(task_seconds=1.0)
    victim(tmp_path, "posted", 3)
    (tmp_path / "journal").unlink()
    result = go(session, tmp_path)
    assert result["empty"]
    assert any(row["joined"] for row in result["moved"])
    assert moved_once()


def test_stopped_by_a_signal_it_joins_what_is_under_way(session: Quick, tmp_path: Path) -> None:
    switch(task_seconds=1.0)
    progress = Progress()
    timer = threading.Timer(1.6, progress.stop, ("SIGTERM",))
    timer.start()
    with pytest.raises(Interrupted) as e:
        go(session, tmp_path, progress=progress)
    timer.join()
    assert "go on" in str(e.value.left)
    assert e.value.partial["changed"]
    switch(task_seconds=0.1)
    result = go(session, tmp_path)
    assert result["empty"]
    assert moved_once()
