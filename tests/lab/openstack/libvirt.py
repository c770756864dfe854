# Copyright (c) 2026, ferry.vmware contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A libvirt of the lab's own, under which Nova runs its servers in QEMU: an ordinary user's session daemon, all of it in the state.

libvirtd takes root for the system's daemon, with /etc/libvirt, /var/lib/libvirt and files that change their owner. So where the
lab is root's, libvirtd runs in a user namespace in which the same user has another number (user_namespaces(7)): to the machine
it is still who started the lab, to itself it is nobody in particular.
"""

from __future__ import annotations

import hashlib
import os
import pwd
import signal
import socket
import tempfile
import time
from pathlib import Path

from ..common import LabError, Process, need, started_at
from .layout import Layout

#: sun_path of a Unix socket holds 108 bytes with its end (unix(7)); a guest's monitor is the longest of libvirt's sockets.
_LONGEST_SOCKET = 107
_MONITOR = "libvirt/qemu/lib/domain-9999-instance-00000000/monitor.sock"
_START_TIMEOUT = 60.0  # seconds; the first time it asks QEMU what it can do


def _folder(layout: Layout) -> Path:
    """The state's folder by a short name, a link: checkouts lie deeper than a socket's name may be long."""
    mark = hashlib.sha256(os.fsencode(layout.state)).hexdigest()[:10]
    return Path(tempfile.gettempdir()) / f"ferry-lab-{mark}"


def _link(layout: Layout) -> None:
    real, short = layout.state / "libvirt", _folder(layout)
    real.mkdir(parents=True, exist_ok=True)
    try:
        short.symlink_to(real)
    except FileExistsError:
        if not short.is_symlink() or short.lstat().st_uid != os.geteuid() or os.readlink(short) != str(real):
            raise LabError(f"{short} is somebody else's: remove it") from None


def socket_path(layout: Layout) -> Path:
    return _folder(layout) / "run/libvirt/libvirt-sock"


def uri(layout: Layout) -> str:
    """The connection URI, for Nova and for virsh, whoever they run as."""
    return f"qemu+unix:///session?socket={socket_path(layout)}"


def environment(layout: Layout) -> dict[str, str]:
    """Where the session's files go (XDG base directories), and what QEMU needs to be found."""
    folder = _folder(layout)
    kept = {k: v for k, v in os.environ.items() if k in ("LANG", "LC_ALL", "TMPDIR")}
    return kept | {
        "HOME": str(folder),
        "PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
        "XDG_RUNTIME_DIR": str(folder / "run"),
        "XDG_CONFIG_HOME": str(folder / "config"),
        "XDG_CACHE_HOME": str(folder / "cache"),
        "XDG_DATA_HOME": str(folder / "data"),
    }


def check(layout: Layout) -> None:
    """Raise LabError for what is missing on this machine."""
    need("libvirtd", "libvirt-daemon", "runs Nova's servers")
    need("virsh", "libvirt-clients", "shows what runs")
    need("qemu-system-x86_64", "qemu-system-x86", "emulates Nova's servers")
    if not list(layout.venv.glob("lib/python*/site-packages/libvirtmod*.so")):
        raise LabError(f"{layout.venv} has no binding of libvirt, by which Nova talks to it: make venv-libvirt")
    longest = _folder(layout) / "config" / _MONITOR
    if len(os.fsencode(longest)) > _LONGEST_SOCKET:
        raise LabError(f"{longest} is too long for the name of a socket ({_LONGEST_SOCKET} bytes): set TMPDIR to a shorter folder")


def start(layout: Layout, process: Process) -> None:
    """Start libvirtd if it does not run, and wait until it answers."""
    if process.pid() is not None:
        return
    check(layout)
    _link(layout)
    for name in ("run", "config/libvirt", "cache", "data"):
        folder = _folder(layout) / name
        folder.mkdir(parents=True, exist_ok=True)
        folder.chmod(0o700)
    # Consoles straight into their files: the other way wants a second daemon, virtlogd.
    (_folder(layout) / "config/libvirt/qemu.conf").write_text('stdio_handler = "file"\nsecurity_driver = "none"\n')
    socket_path(layout).unlink(missing_ok=True)
    process.start(command(), environment(layout), whole_env=True)
    process.wait_ready(lambda: _answers(socket_path(layout)), _START_TIMEOUT)


def command() -> list[str]:
    """libvirtd's command line."""
    libvirtd = need("libvirtd", "libvirt-daemon", "runs Nova's servers")
    if os.geteuid() != 0:
        return [libvirtd]
    nobody = pwd.getpwnam("nobody")
    unshare = need("unshare", "util-linux", "gives libvirtd a user namespace")
    return [unshare, f"--map-user={nobody.pw_uid}", f"--map-group={nobody.pw_gid}", libvirtd]


def stop(layout: Layout, process: Process) -> None:
    """End all guests, then libvirtd. The guests are processes of their own that would outlive it."""
    guests = [pid for pid in (_read_pid(path) for path in (_folder(layout) / "run/libvirt/qemu/run").glob("*.pid")) if pid]
    for pid in guests:
        if _is_guest(pid, layout):
            os.kill(pid, signal.SIGTERM)
    end = time.monotonic() + 10
    while any(started_at(pid) for pid in guests if _is_guest(pid, layout)):
        if time.monotonic() > end:
            for pid in guests:
                if _is_guest(pid, layout):
                    os.kill(pid, signal.SIGKILL)
            break
        time.sleep(0.05)
    process.stop()
    if _folder(layout).is_symlink():
        _folder(layout).unlink()


def _read_pid(path: Path) -> int | None:
    try:
        return int(path.read_text())
    except (OSError, ValueError):
        return None


def _is_guest(pid: int, layout: Layout) -> bool:
    """Whether the process is a QEMU of this state, and not another one that has got its number."""
    try:
        line = Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return False
    return b"qemu-system" in line and os.fsencode(layout.state) in line


def _answers(path: Path) -> bool:
    with socket.socket(socket.AF_UNIX) as s:
        try:
            s.connect(str(path))
        except OSError:
            return False
    return True
