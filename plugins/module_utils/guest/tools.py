# Copyright (c) 2026, ferry.vmware contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The programs of libguestfs and virt-v2v: where they are, in which environment they run, and running them so that none outlives us.

A killed task must not leave an appliance of 1.7 GB behind: each program is told by the kernel to die with its parent
(C(setpriv --pdeathsig)), and guestfish ends when its input does.
"""

from __future__ import annotations

import contextlib
import os
import selectors
import shutil
import signal
import subprocess
import time
from dataclasses import dataclass
from typing import Callable, Iterable, Mapping, Sequence

from ..errors import MissingLibrary
from .model import GuestError

#: Program to the packages that have it (Debian; Fedora and RHEL).
PACKAGES = {
    "guestfish": ("libguestfs-tools", "guestfs-tools"),
    "virt-v2v-in-place": ("virt-v2v", "virt-v2v"),
    "qemu-img": ("qemu-utils", "qemu-img"),
    "setpriv": ("util-linux", "util-linux"),
}
#: Fedora and RHEL keep virt-v2v-in-place, which users are not to call by themselves there, outside of PATH.
_ELSEWHERE = ("/usr/libexec", "/usr/sbin", "/sbin")
#: Seconds between two looks at whether the task is to stop.
_LOOK = 0.5
#: Characters of what a program says that are kept, from its end; libguestfs' traces can be long.
_KEPT = 200_000


def missing(programs: Iterable[str] = ()) -> list[str]:
    """Those of the programs that are not on this machine; without names, of all."""
    return [name for name in programs or PACKAGES if find(name) is None]


def find(name: str) -> str | None:
    return shutil.which(name, path=os.pathsep.join([os.environ.get("PATH", os.defpath), *_ELSEWHERE]))


def need(*programs: str) -> None:
    """Without names: all of them.

    :raises MissingLibrary: one is not on this machine; names the packages.
    """
    absent = missing(programs)
    if absent:
        debian, fedora = (" ".join(dict.fromkeys(PACKAGES[name][i] for name in absent)) for i in (0, 1))
        raise MissingLibrary(
            f"{' and '.join(absent)} {'is' if len(absent) == 1 else 'are'} needed on the conversion host.",
            code="missing_program",
            step="look for the programs",
            next_command=f"apt-get install {debian} (Fedora, RHEL: dnf install {fedora}), or switch the conversion off: ferry_guest_convert: false",
        )


class _Machine:
    """What was learned of this machine: a KVM may be there that does not work, in a cloud without nested virtualization for example."""

    emulates = False


def emulated() -> bool:
    """Whether appliances are emulated: this user may not use KVM, or the user says so, or it did not work."""
    settings = os.environ.get("LIBGUESTFS_BACKEND_SETTINGS", "")
    return _Machine.emulates or "force_tcg" in settings or not os.access("/dev/kvm", os.R_OK | os.W_OK)


def emulate() -> None:
    """KVM does not work here: emulate from now on."""
    _Machine.emulates = True


def environment(**more: str) -> dict[str, str]:
    """The environment for them: QEMU without libvirt, and emulated where KVM does not work; the user's own variables win."""
    env = {"LIBGUESTFS_BACKEND": "direct"}
    if emulated():
        more.setdefault("LIBGUESTFS_BACKEND_SETTINGS", "force_tcg")
    return {**env, **os.environ, "LC_ALL": "C.UTF-8", **more}


def bound_to_us(argv: Sequence[str]) -> list[str]:
    """The command line with which a program is killed when this process dies, however it dies."""
    return [find("setpriv") or "setpriv", "--pdeathsig", "KILL", "--", find(argv[0]) or argv[0], *argv[1:]]


@dataclass(frozen=True)
class Finished:
    """How a program ended, and what it said (both its outputs, in order)."""

    code: int
    said: str
    seconds: float


def run(
    argv: Sequence[str],
    *,
    check: Callable[[], None] = lambda: None,
    watch: Callable[[str], None] = lambda line: None,
    timeout: float = 3600.0,
    env: Mapping[str, str] | None = None,
) -> Finished:
    """Run a program to its end.

    :param check: called twice a second; what it raises ends the program.
    :param watch: gets each line that it says.
    :param timeout: seconds.
    :raises GuestError: code C(timeout), where it has not ended by then.
    """
    began = time.monotonic()
    process = subprocess.Popen(
        bound_to_us(argv),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        env=dict(environment() if env is None else env),
        start_new_session=True,
    )
    said, line = "", ""
    out = process.stdout
    if out is None:
        raise GuestError("The program has no output.", step=argv[0])
    try:
        with selectors.DefaultSelector() as selector:
            selector.register(out, selectors.EVENT_READ)
            while True:
                check()
                if time.monotonic() - began > timeout:
                    raise GuestError(f"{argv[0]} has not ended after {timeout:.0f} s.", code="timeout", step=argv[0], said=said[-400:])
                if not selector.select(_LOOK):
                    continue
                data = os.read(out.fileno(), 1 << 16)
                if not data:
                    break
                text = data.decode("utf-8", "replace")
                said = (said + text)[-_KEPT:]
                *whole, line = (line + text).split("\n")
                for one in whole:
                    watch(one.rstrip("\r"))
        return Finished(process.wait(60), said, time.monotonic() - began)
    finally:
        end(process)


def private(path: str, flags: int) -> int:
    """Opens a file for its owner alone: for C(opener) of open()."""
    return os.open(path, flags, 0o600)


def end(process: subprocess.Popen[bytes]) -> None:
    """End a program that was started in a session of its own, with all that it started: an appliance may outlive who asked for it."""
    if process.poll() is None:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(process.pid, signal.SIGTERM)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(5)
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    if process.stdout is not None:
        process.stdout.close()
