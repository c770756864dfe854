# Copyright (c) 2026, ferry.vmware contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Read budgets: the arithmetic with a clock of the test's own, and the sharing with real processes."""

from __future__ import annotations

import json
import os
import signal
import struct
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any, Callable

import pytest

from ansible_collections.ferry.vmware.plugins.module_utils.disk import budget
from ansible_collections.ferry.vmware.plugins.module_utils.disk.budget import Budget, Clock
from ansible_collections.ferry.vmware.plugins.module_utils.disk.errors import BadInput

MB = 1_000_000
UTILS = Path(budget.__file__).resolve().parent.parent


class Time:
    """A clock that several readers share: who sleeps gives way to whoever wakes first. Nothing waits in truth."""

    def __init__(self) -> None:
        self.at = 1000.0
        self.midnight = 0.0
        self._changed = threading.Condition()
        self._wake: dict[int, float] = {}
        self._running = 0

    @property
    def clock(self) -> Clock:
        return Clock(lambda: self.at, self.sleep, lambda: (self.at - self.midnight) % 86400)

    def sleep(self, seconds: float) -> None:
        me = threading.get_ident()
        with self._changed:
            self._wake[me] = self.at + seconds
            self._running -= 1
            self._advance()
            while me in self._wake:
                assert self._changed.wait(60)

    def _advance(self) -> None:
        """When all sleep, the first one wakes."""
        if self._running == 0 and self._wake:
            first = min(self._wake, key=lambda who: (self._wake[who], who))
            self.at = max(self.at, self._wake.pop(first))
            self._running = 1
            self._changed.notify_all()

    def run(self, *readers: Callable[[], None]) -> None:
        """Run all until they return."""
        errors: list[BaseException] = []

        def one(reader: Callable[[], None]) -> None:
            self.sleep(0)
            try:
                reader()
            except BaseException as e:  # noqa: BLE001 - raised again by the thread that waits, below
                errors.append(e)
            finally:
                with self._changed:
                    self._running -= 1
                    self._advance()

        self._running = len(readers)
        threads = [threading.Thread(target=one, args=(reader,)) for reader in readers]
        for t in threads:
            t.start()
        for t in threads:
            t.join()
        if errors:
            raise errors[0]


@pytest.fixture
def time() -> Time:
    return Time()


@pytest.fixture
def folder(tmp_path: Path) -> str:
    return str(tmp_path / "budget")


class Reader:
    """Reads pieces of one size until a time, and counts."""

    def __init__(self, time: Time, throttle: Callable[[int], None], size: int, until: float) -> None:
        self.time, self.throttle, self.size, self.until = time, throttle, size, until
        self.bytes = 0
        #: When each piece was let through.
        self.log: list[float] = []

    def __call__(self) -> None:
        while True:
            self.throttle(self.size)
            if self.time.at >= self.until:
                return
            self.bytes += self.size
            self.log.append(self.time.at)


def readers(time: Time, folder: str, where: list[dict[str, str]], *, size: int = MB, seconds: float = 60) -> list[Reader]:
    """One reader for each of C(where), each with a budget of its own, as processes have."""
    made = [Reader(time, Budget(folder, time.clock).throttle(**kw), size, time.at + seconds) for kw in where]
    time.run(*made)
    return made


def test_rate_overall_is_shared_and_kept(time: Time, folder: str) -> None:
    budget.save(folder, {"overall": {"rate": 10}})
    made = readers(time, folder, [{"host": f"esx{n}"} for n in range(5)])
    total = sum(r.bytes for r in made)
    assert 0.97 * 600 * MB <= total <= 1.03 * 600 * MB
    assert max(r.bytes for r in made) <= 1.1 * min(r.bytes for r in made)


def test_each_scope_has_its_rate(time: Time, folder: str) -> None:
    budget.save(folder, {"overall": {"rate": 50}, "hosts": {"ESX1": {"rate": 10}}, "datastores": {"*": {"rate": 20}}})
    where = [{"host": "esx1", "datastore": "a"}, {"host": "esx2", "datastore": "a"}, {"host": "esx2", "datastore": "b"}]
    slow, other, free = (r.bytes for r in readers(time, folder, where))
    assert slow <= 10.3 * 60 * MB
    assert 0.95 * 20 * 60 * MB <= slow + other <= 1.03 * 20 * 60 * MB
    assert 0.95 * 20 * 60 * MB <= free <= 1.03 * 20 * 60 * MB


def test_large_requests_neither_starve_nor_are_starved(time: Time, folder: str) -> None:
    budget.save(folder, {"overall": {"rate": 8}})
    until = time.at + 60
    small = Reader(time, Budget(folder, time.clock).throttle(), 64 << 10, until)
    large = Reader(time, Budget(folder, time.clock).throttle(), 64 << 20, until)
    time.run(small, large)
    # Equal turns of bytes would give each half; the small one takes smaller turns.
    assert large.bytes >= 64 << 20
    gaps = [b - a for a, b in zip(small.log, small.log[1:], strict=False)]
    assert max(gaps) <= 2 * budget.SLICE + 0.1


def test_threads_of_one_disk_share_its_turn(time: Time, folder: str) -> None:
    budget.save(folder, {"overall": {"rate": 10}})
    until = time.at + 30
    many = Budget(folder, time.clock).throttle()
    one = Reader(time, Budget(folder, time.clock).throttle(), 4 * MB, until)
    # The four threads would wait for a real lock while time stands still, so they take turns here by being one after the other.
    two = Reader(time, many, MB, until)
    time.run(one, two)
    assert 0.9 <= one.bytes / (one.bytes + two.bytes) / 0.71 <= 1.1
    assert (one.bytes + two.bytes) <= 1.05 * 300 * MB


@pytest.mark.fault("a budget far too small is raised", "budget", "who waits goes on within seconds")
def test_changed_settings_take_effect_on_who_waits(time: Time, folder: str) -> None:
    budget.save(folder, {"overall": {"rate": 0.01}})
    reader = Reader(time, Budget(folder, time.clock).throttle(), MB, time.at + 30)

    def change() -> None:
        time.sleep(10)
        budget.save(folder, {"overall": {"rate": 100}})

    time.run(reader, change)
    assert reader.log[0] - 1000 <= 12
    later = [t for t in reader.log if t > 1012]
    assert 0.95 * 18 * 100 <= len(later) <= 1.05 * 18 * 100


def test_lowered_rate_takes_effect(time: Time, folder: str) -> None:
    budget.save(folder, {"overall": {"rate": 100}})
    reader = Reader(time, Budget(folder, time.clock).throttle(), MB, time.at + 30)

    def change() -> None:
        time.sleep(10)
        budget.save(folder, {"overall": {"rate": 2}})

    time.run(reader, change)
    assert len([t for t in reader.log if t > 1011]) <= 2 * 19 + 2


@pytest.mark.fault("the settings are damaged by hand", "budget", "running copies keep to the last ones")
def test_a_broken_file_leaves_the_last_settings_in_force(time: Time, folder: str) -> None:
    budget.save(folder, {"overall": {"rate": 2}})
    shared = Budget(folder, time.clock)
    reader = Reader(time, shared.throttle(), MB, time.at + 20)

    def change() -> None:
        time.sleep(5)
        Path(folder, budget.FILE).write_text('{"overall": {"ra')

    time.run(reader, change)
    assert 36 <= len(reader.log) <= 42
    with pytest.raises(BadInput, match="JSON"):
        Budget(folder)


def test_windows(time: Time, folder: str) -> None:
    time.midnight = time.at - 86400 + 30  # it is 23:59:30
    windows = [{"from": "23:59", "to": "00:00", "rate": 0}, {"from": "00:00", "to": "00:01", "rate": 5}]
    budget.save(folder, {"overall": {"rate": 1, "windows": windows}})
    reader = Reader(time, Budget(folder, time.clock).throttle(), MB, time.at + 150)
    time.run(reader)
    starts = [t - 1000 for t in reader.log]
    assert not [t for t in starts if t < 30]
    assert 285 <= len([t for t in starts if 30 <= t < 90]) <= 310
    assert 57 <= len([t for t in starts if t >= 90]) <= 63


def test_a_window_over_midnight_without_a_rate_lifts_the_limit(folder: str) -> None:
    budget.save(folder, {"hosts": {"*": {"rate": 3, "disks": 2, "windows": [{"from": "22:00", "to": "6:00", "disks": 8}]}}})
    limit = dict(Budget(folder).settings().scopes("any", None))[("host", "any")]
    assert (limit.rate_at(12 * 3600), limit.disks_at(12 * 3600)) == (3 * MB, 2)
    for hour in (22, 23.5, 0, 5.99):
        assert (limit.rate_at(hour * 3600), limit.disks_at(hour * 3600)) == (None, 8)
    assert limit.rate_at(6 * 3600) == 3 * MB


@pytest.mark.fault("the machine is restarted", "budget", "buckets begin anew")
def test_after_a_restart_of_the_machine(time: Time, folder: str) -> None:
    budget.save(folder, {"overall": {"rate": 1}})
    time.at = 1e7
    Budget(folder, time.clock).throttle()(100_000)
    time.at = 5.0
    time.run(reader := Reader(time, Budget(folder, time.clock).throttle(), 100_000, 15.0))
    assert 95 <= len(reader.log) <= 105


def test_stop_ends_the_wait(time: Time, folder: str) -> None:
    budget.save(folder, {"overall": {"rate": 0}})

    class Stopped(Exception):
        pass

    def stop() -> None:
        if time.at > 1005:
            raise Stopped

    with pytest.raises(Stopped):
        time.run(lambda: Budget(folder, time.clock).throttle(stop=stop)(1))
    assert time.at < 1007


def test_without_settings_nothing_is_limited(time: Time, folder: str) -> None:
    throttle = Budget(folder, time.clock).throttle(host="h", datastore="d")
    for _n in range(100):
        throttle(1 << 40)
    assert time.at == 1000


# -- settings -------------------------------------------------------------------------------------------------------


def test_saved_in_one_step_and_once(folder: str) -> None:
    settings = {"overall": {"rate": "100", "disks": 4}, "hosts": {"ESX-1": {"rate": 1.5}}}
    assert budget.save(folder, settings)
    assert not budget.save(folder, settings)
    path = Path(folder, budget.FILE)
    assert path.stat().st_mode & 0o777 == 0o600
    assert Path(folder).stat().st_mode & 0o777 == 0o700
    assert json.loads(path.read_text())["hosts"] == {"esx-1": {"rate": 1.5}}
    assert [p.name for p in Path(folder).iterdir()] == [budget.FILE]
    assert budget.save(folder, None)
    assert not budget.save(folder, None)


@pytest.mark.parametrize(
    "wrong",
    [
        {"speed": 1},
        {"overall": 5},
        {"overall": {"rate": -1}},
        {"overall": {"rate": True}},
        {"overall": {"rate": float("nan")}},
        {"overall": {"rate": "1e400"}},
        {"overall": {"rate": 1e-9}},
        {"overall": {"disks": 0}},
        {"overall": {"disks": 1.5}},
        {"hosts": ["esx1"]},
        {"hosts": {"": {"rate": 1}}},
        {"hosts": {"a\nb": {"rate": 1}}},
        {"hosts": {"x" * 300: {}}},
        {"overall": {"windows": [{"from": "25:00", "to": "1:00"}]}},
        {"overall": {"windows": [{"from": 480, "to": "1:00"}]}},
        {"overall": {"windows": [{"from": "08:00"}]}},
        {"overall": {"windows": [{"from": "08:00", "to": "24:30"}]}},
        {"overall": {"windows": [{"from": "08:00", "to": "09:00", "rates": 1}]}},
        {"overall": {"windows": [{"from": "08:00", "to": "09:00"}] * 49}},
        {"datastores": {f"ds{n}": {} for n in range(10_001)}},
    ],
)
def test_settings_that_cannot_be(folder: str, wrong: dict[str, Any]) -> None:
    with pytest.raises(BadInput):
        budget.save(folder, wrong)
    assert not Path(folder, budget.FILE).exists()


def test_names_never_become_paths(folder: str, time: Time) -> None:
    name = "../../etc/x"
    budget.save(folder, {"hosts": {name: {"rate": 5, "disks": 1}}})
    shared = Budget(folder, time.clock)
    shared.throttle(host=name)(1)
    with shared.slot(host=name):
        inside = {p.relative_to(folder) for p in Path(folder).rglob("*")}
    assert {p.parts[0] for p in inside} == {budget.FILE, "budget"}
    assert sorted(p.name for p in Path(folder).parent.iterdir()) == ["budget"]


# -- slots ----------------------------------------------------------------------------------------------------------


class Full(Exception):
    pass


def full() -> None:
    raise Full


def test_slots_by_scope(folder: str) -> None:
    budget.save(folder, {"overall": {"disks": 3}, "hosts": {"*": {"disks": 2}}})
    shared, other = Budget(folder), Budget(folder)
    with shared.slot(host="a"), other.slot(host="a"):
        with pytest.raises(Full), shared.slot(host="a", stop=full):
            pass
        with other.slot(host="b"), pytest.raises(Full), shared.slot(host="c", stop=full):
            pass
        # what was refused holds nothing
        with shared.slot(host="b"):
            pass


def test_a_lowered_limit_counts_who_is_there(folder: str) -> None:
    budget.save(folder, {"overall": {"disks": 3}})
    first, second, third = (Budget(folder).slot() for _n in range(3))
    for slot in (first, second, third):
        slot.__enter__()
    first.__exit__(None, None, None)
    budget.save(folder, {"overall": {"disks": 2}})
    with pytest.raises(Full), Budget(folder).slot(stop=full):
        pass
    second.__exit__(None, None, None)
    with Budget(folder).slot(stop=full):
        pass
    third.__exit__(None, None, None)


CHILD = """
import sys
from disk.budget import Budget
shared = Budget(sys.argv[1])
with shared.slot(host="esx1"):
    print("in", flush=True)
    throttle = shared.throttle(host="esx1")
    for line in sys.stdin:
        throttle(int(line))
        print("passed", flush=True)
"""


def child(folder: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", CHILD, folder],
        env={**os.environ, "PYTHONPATH": str(UTILS)},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )


@pytest.mark.fault("a copy that holds a place is killed", "budget", "the place is free at once")
def test_a_killed_process_frees_its_slot_and_its_bucket(folder: str) -> None:
    budget.save(folder, {"hosts": {"esx1": {"disks": 1, "rate": 1000}}})
    with child(folder) as one:
        assert one.stdout is not None and one.stdout.readline() == "in\n"
        with pytest.raises(Full), Budget(folder).slot(host="esx1", stop=full):
            pass
        os.kill(one.pid, signal.SIGKILL)
        one.wait()
    with Budget(folder).slot(host="esx1", stop=full):
        Budget(folder).throttle(host="esx1")(1000)


def test_processes_count_against_one_bucket(folder: str) -> None:
    """What real processes take is in the bucket, whoever took it: the time that is given away is the sum of bytes over the rate."""
    budget.save(folder, {"overall": {"rate": 2}})
    with child(folder) as one, child(folder) as two:
        for process in (one, two):
            assert process.stdout is not None and process.stdin is not None
            assert process.stdout.readline() == "in\n"
        begun = Clock().now()
        for _n in range(4):
            for process in (one, two):
                print(250_000, file=process.stdin, flush=True)
        for _n in range(4):
            for process in (one, two):
                assert process.stdout is not None and process.stdout.readline() == "passed\n"
        for process in (one, two):
            assert process.stdin is not None
            process.stdin.close()
    # The bucket was empty before: all bytes together are given away up to their sum over the rate, whoever took them.
    (path,) = Path(folder).rglob("*.bucket")
    given, rate = struct.unpack("<dd", path.read_bytes())
    assert rate == 2e6
    assert given - begun >= 1.0 - budget.BURST
