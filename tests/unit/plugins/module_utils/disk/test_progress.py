# Copyright (c) 2026, ferry.vmware contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import json
import os
import signal
import stat
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any, Callable

import pytest

from ansible_collections.ferry.vmware.plugins.module_utils.disk.errors import Busy, Interrupted, SinkError
from ansible_collections.ferry.vmware.plugins.module_utils.disk.progress import Meter, Progress, progress_from, start_time


def until(what: Callable[[], Any]) -> Any:
    end = time.monotonic() + 20
    while time.monotonic() < end:
        found = what()
        if found:
            return found
        time.sleep(0.02)
    raise AssertionError("not seen within 20 s")


def read(path: Path) -> dict[str, Any]:
    content: dict[str, Any] = json.loads(path.read_text())
    return content


def test_status_file_of_several_disks(tmp_path: Path) -> None:
    path = tmp_path / "status.json"
    with Progress(str(path), name="db01") as progress:
        progress.update("Hard disk 1", "copy", 10, 100)
        progress.update("Hard disk 2", "verify", 40, 50, skipped=30, why="resumed\x1b[31m")
        status = until(lambda: len(read(path)["disks"]) == 2 and read(path))
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
        assert (status["version"], status["name"], status["pid"], status["state"]) == (1, "db01", os.getpid(), "running")
        assert status["start_time"] == start_time(os.getpid()) > 0
        assert (status["done"], status["total"], status["skipped"], status["phase"]) == (50, 150, 30, "verify")
        assert status["disks"]["Hard disk 2"]["why"] == "resumed\\x1b[31m"
        beat = status["beat"]
        until(lambda: read(path)["beat"] > beat)  # the file stays fresh though nothing moves
        progress.finish("Hard disk 1", skipped=7)
    status = read(path)
    assert status["state"] == "done"
    assert status["why"] == ""
    one, two = status["disks"]["Hard disk 1"], status["disks"]["Hard disk 2"]
    assert (one["done"], one["skipped"], one["state"], one["left"]) == (100, 7, "done", None)
    assert (two["done"], two["state"]) == (40, "done")
    assert os.listdir(tmp_path) == ["status.json"]


def test_failure_is_told(tmp_path: Path) -> None:
    path = tmp_path / "status.json"

    def work() -> None:
        with Progress(str(path)) as progress:
            progress.update("Hard disk 1", "copy", 10, 100)
            raise SinkError("The target is full.", disk="Hard disk 1")

    with pytest.raises(SinkError):
        work()
    status = read(path)
    assert status["state"] == "failed"
    assert "The target is full." in status["why"]
    assert status["disks"]["Hard disk 1"]["state"] == "failed"
    assert status["disks"]["Hard disk 1"]["done"] == 10


def test_without_a_file_nothing_is_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    before = threading.active_count()
    with progress_from({}) as progress:
        assert not progress.controlled
        progress.update("Hard disk 1", "copy", 1, 2)
        progress.check()
        assert threading.active_count() == before
        assert progress.snapshot()["done"] == 1
    assert not os.listdir(tmp_path)


def test_what_the_action_asks_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FERRY_TASK_STATUS", str(tmp_path / "s"))
    monkeypatch.setenv("FERRY_TASK_LEASE", "30")
    made = progress_from({}, name="db01", unit="VMs")
    assert (made.path, made.lease, made.name, made.unit, made.controlled) == (str(tmp_path / "s"), 30.0, "db01", "VMs", True)
    assert "FERRY_TASK_STATUS" not in os.environ  # children of the module are not part of the task
    monkeypatch.setenv("FERRY_TASK_LEASE", "long")
    assert progress_from().lease == 0


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_signal_stops_every_thread_and_handlers_come_back(tmp_path: Path, number: signal.Signals) -> None:
    path, old, seen = tmp_path / "status.json", signal.getsignal(number), []

    def work(progress: Progress) -> None:
        try:
            while True:
                progress.wait(0.01)
        except Interrupted as e:
            seen.append(e.message)

    def task() -> None:
        with Progress(str(path)) as progress:
            progress.install_signals()
            threads = [threading.Thread(target=work, args=(progress,)) for _n in range(3)]
            for thread in threads:
                thread.start()
            progress.check()
            os.kill(os.getpid(), number)
            for thread in threads:
                thread.join(20)
            until(lambda: read(path)["state"] == "stopping")
            progress.check()

    with pytest.raises(Interrupted):
        task()
    assert seen == [f"Stopped: {number.name}."] * 3
    assert read(path)["state"] == "failed"
    assert number.name in read(path)["why"]
    assert signal.getsignal(number) is old


def test_lease_that_is_no_longer_touched(tmp_path: Path) -> None:
    path, lease = tmp_path / "s", tmp_path / "s.lease"
    lease.touch()
    os.utime(lease, (1, 1))  # a clock that is wrong does not matter, only that the time changes
    with Progress(str(path), lease=1.0) as progress:
        for n in range(2, 8):
            time.sleep(0.25)
            os.utime(lease, (n, n))
        progress.check()
        until(lambda: progress._why)
        with pytest.raises(Interrupted, match="no sign of life of its controller for 1 s"):
            progress.check()


def test_lease_taken_away_stops_even_an_untimed_task(tmp_path: Path) -> None:
    path, lease = tmp_path / "s", tmp_path / "s.lease"
    lease.touch()
    with Progress(str(path)) as progress:
        progress.check()
        lease.unlink()
        until(lambda: progress._why)
        with pytest.raises(Interrupted, match="gave it up"):
            progress.check()


HANGS = """
import sys
import threading

from ansible_collections.ferry.vmware.plugins.module_utils.disk.progress import Progress
with Progress(sys.argv[1], patience=0.5) as progress:
    progress.update("Hard disk 1", "copy", 1, 2)
    threading.Event().wait()  # for a server that never answers
"""


@pytest.mark.fault("a call never returns, and the lease runs out", where="controller", ends="the process ends, and says why")
def test_what_hangs_when_it_is_told_to_stop_is_killed(tmp_path: Path) -> None:
    path, lease = tmp_path / "s", tmp_path / "s.lease"
    lease.touch()
    with subprocess.Popen([sys.executable, "-c", HANGS, str(path)]) as process:
        until(path.exists)
        time.sleep(1)
        assert process.poll() is None, "it was not told anything yet"
        lease.unlink()
        assert process.wait(60) == -signal.SIGKILL
    said = json.loads(path.read_text())
    assert said["state"] == "failed" and "gave it up; it did not end for 0.5 s, and was killed" in said["why"]


def test_lease_taken_away_before_the_start(tmp_path: Path) -> None:
    with Progress(str(tmp_path / "s"), controlled=True) as progress:
        with pytest.raises(Interrupted, match="gave it up"):
            progress.check()


def test_no_lease_file_at_all(tmp_path: Path) -> None:
    with Progress(str(tmp_path / "s"), lease=0.3) as progress:
        until(lambda: progress._why)
    with Progress(str(tmp_path / "t")) as progress:
        time.sleep(0.6)
        progress.check()


def test_the_same_task_twice(tmp_path: Path) -> None:
    path = str(tmp_path / "s")
    with Progress(path):
        with pytest.raises(Busy) as caught:
            Progress(path).__enter__()
        assert caught.value.details["status_file"] == path
        with Progress(str(tmp_path / "t")):
            pass
    with Progress(path):
        pass
    (tmp_path / "s.lock").touch()  # of a task that was killed: nobody holds it
    with Progress(path):
        pass


def test_folder_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(SinkError, match="cannot be written"):
        Progress(str(tmp_path / "nowhere" / "s")).__enter__()


def test_folder_taken_away_does_not_end_the_task(tmp_path: Path) -> None:
    folder = tmp_path / "status"
    folder.mkdir()
    with Progress(str(folder / "s")) as progress:
        for name in os.listdir(folder):
            (folder / name).unlink()
        folder.rmdir()
        progress.update("Hard disk 1", "copy", 1, 2)
        time.sleep(0.6)
        progress.check()


def test_rate_counts_what_moved_in_this_run_only(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    now = [100.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    progress = Progress()
    progress.update("d", "copy", 40_000, 100_000, skipped=40_000)  # an earlier run's part: no speed
    progress.snapshot()
    for step in range(1, 11):
        now[0] += 1.0
        progress.update("d", "copy", 40_000 + step * 2_000, 100_000, skipped=40_000 + step * 500)
        facts = progress.snapshot()["disks"]["d"]
        assert facts["rate"] == pytest.approx(1_500)
        assert facts["left"] == pytest.approx((60_000 - step * 2_000) / 2_000, abs=0.1)
    for _n in range(60):
        now[0] += 1.0
        stalled = progress.snapshot()["disks"]["d"]
    assert stalled["rate"] < 50
    progress.update("d", "verify", 0, 100_000)
    assert progress.snapshot()["disks"]["d"]["rate"] == 0
    assert progress.snapshot()["disks"]["d"]["left"] is None


def test_meter_is_right_from_its_first_value_on() -> None:
    meter = Meter()
    assert meter.rate == 0.0
    meter.add(5.0, 0.0)
    meter.add(30.0, 0.1)
    assert meter.rate == pytest.approx(300.0)


def test_update_and_check_cost_next_to_nothing(tmp_path: Path) -> None:
    with Progress(str(tmp_path / "s")) as progress:
        began = time.process_time()
        for n in range(20_000):
            progress.update("d", "copy", n, 20_000, n)
            progress.check()
        each = (time.process_time() - began) / 20_000
    assert each < 50e-6  # about half a microsecond here; the limit is for the slowest machine
