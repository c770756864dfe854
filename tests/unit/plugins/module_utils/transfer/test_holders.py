# Copyright (c) 2026, ferry.vmware contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Who copies disks of a VM on this machine: told by locks, and ended by nothing else."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from ansible_collections.ferry.vmware.plugins.module_utils.errors import Busy
from ansible_collections.ferry.vmware.plugins.module_utils.transfer import holders

VM = "50210a1b-1111-4c6e-9f01-7a1e5b1c0001"
HOLD = """
import fcntl, os, signal, sys, time
if sys.argv[2] == "deaf":
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
fd = os.open(sys.argv[1], os.O_RDWR | os.O_CREAT)
fcntl.flock(fd, fcntl.LOCK_EX)
os.write(fd, f"pid {os.getpid()} since now".encode())
print("held", flush=True)
time.sleep(600)
"""


@contextmanager
def holding(path: Path, how: str = "hears") -> Iterator[subprocess.Popen[bytes]]:
    """A process that holds the lock."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with subprocess.Popen([sys.executable, "-c", HOLD, str(path), how], stdout=subprocess.PIPE) as process:
        try:
            assert process.stdout is not None and process.stdout.readline() == b"held\n"
            yield process
        finally:
            process.kill()


def test_the_locks_of_a_vm_and_of_its_disks_are_seen_and_no_others(tmp_path: Path) -> None:
    assert holders.holders(str(tmp_path), VM) == []
    own, disk = tmp_path / "vms" / f"{VM}.lock", tmp_path / "ledgers" / f"{VM}--2000--0123456789abcdef.sqlite.lock"
    other = tmp_path / "ledgers" / f"{VM.replace('1111', '2222')}--2000--0123456789abcdef.sqlite.lock"
    with holding(own) as a, holding(disk) as b, holding(other):
        assert {(h.path, h.pid) for h in holders.holders(str(tmp_path), VM)} == {(str(own), a.pid), (str(disk), b.pid)}
    assert holders.holders(str(tmp_path), VM) == []


def test_those_that_hold_them_are_asked_to_end(tmp_path: Path) -> None:
    with holding(tmp_path / "vms" / f"{VM}.lock") as process:
        with pytest.raises(Busy) as caught:
            holders.end(str(tmp_path), VM, "db01", stop=False)
        assert f"process {process.pid}" in str(caught.value.said) and process.poll() is None
        assert holders.end(str(tmp_path), VM, "db01", stop=True) == 1
        assert process.wait(10) == -signal.SIGTERM
    assert holders.end(str(tmp_path), VM, "db01", stop=True) == 0


def test_one_that_does_not_end_is_an_error(tmp_path: Path) -> None:
    with holding(tmp_path / "vms" / f"{VM}.lock", "deaf") as process, pytest.raises(Busy):
        holders.end(str(tmp_path), VM, "db01", stop=True, timeout=0)
    assert process.returncode == -signal.SIGKILL


def test_a_stale_number_in_a_lock_file_is_nobody(tmp_path: Path) -> None:
    """The number of a process that ended long ago may be anybody's now."""
    path = tmp_path / "vms" / f"{VM}.lock"
    path.parent.mkdir()
    path.write_text(f"pid {os.getppid()} since long ago")
    assert holders.holders(str(tmp_path), VM) == []
    assert holders.end(str(tmp_path), VM, "db01", stop=True) == 0


def test_a_name_from_outside_does_not_leave_the_folder(tmp_path: Path) -> None:
    files = holders.lock_files(str(tmp_path), "../../etc/passwd")
    assert [f for f in files if not os.path.abspath(f).startswith(str(tmp_path))] == []
