# Copyright (c) 2026, ferry.vmware contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""One session with vCenter for all the tasks of a run: each task is a process of its own, and would log in anew.

The session's cookie lies in a file for this user alone. Its name is made of the run, the server, the user and the password (PBKDF2), so
that nobody finds the session who could not have logged in for it. Whoever uses it holds a shared lock: it is logged out by the end of the
run, or, while somebody still uses it then, by the last one to leave; what a killed run left goes with a later log-in here, or when vCenter
finds it idle (30 minutes by default). Any doubt about folder or files, and the caller gets no store: it then has a session of its own.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import http.client
import json
import os
import re
import socket
import stat
import time
from dataclasses import asdict, dataclass, field
from typing import Any, Iterator, Mapping

from .. import trust
from ..disk.progress import start_time
from ..errors import FerryError

#: Environment variable with the name of the run (host, process and its start); without it nothing is shared.
RUN_VARIABLE = "FERRY_RUN"
#: Rounds of PBKDF2-HMAC-SHA256 over the password: some 10 ms, in every task.
ROUNDS = 20_000
#: Seconds to wait for another's log-in, for somebody who is logging out, and for the answer to a log-out.
TURN, ENDING, LOGOUT = 60.0, 5.0, 5.0
#: Seconds after which a session of a run that cannot be looked at from here counts as forgotten.
IDLE = 900.0

_RUN = re.compile(r"[A-Za-z0-9._-]{1,200}")
_STEM = re.compile(r"([0-9a-f]{16}-[0-9a-f]{32})\.(session|use|ended)")
_MAX_FILE, _MOST = 16_384, 100
_ENVELOPE = (
    '<?xml version="1.0" encoding="UTF-8"?><soapenv:Envelope xmlns:soapenv="http://schemas.xmlsoap.org/soap/envelope/"><soapenv:Body>'
    '<Logout xmlns="urn:vim25"><_this type="SessionManager">{}</_this></Logout></soapenv:Body></soapenv:Envelope>'
)


@dataclass(frozen=True)
class Record:
    """A session as it is kept. C(version): pyVmomi's name of the API version; C(wire): the same as it stands in a request."""

    host: str
    port: int
    validate_certs: bool
    ca_path: str | None
    run: str
    cookie: str = field(repr=False)
    key: str = field(repr=False)
    manager: str
    version: str
    wire: str


def folder_of(environ: Mapping[str, str]) -> str:
    """The folder of sessions: in the user's runtime folder (in memory, gone at the log-out), else in the cache folder (XDG)."""
    runtime = environ.get("XDG_RUNTIME_DIR") or ""
    if os.path.isabs(runtime) and os.path.isdir(runtime):
        return os.path.join(runtime, "ferry-vmware-sessions")
    cache = environ.get("XDG_CACHE_HOME") or ""
    if not os.path.isabs(cache):
        cache = os.path.join(environ.get("HOME") or os.path.expanduser("~"), ".cache")
    return os.path.join(cache, "ferry-vmware-sessions")


def _open_folder(path: str, create: bool) -> int:
    """A descriptor of the folder C(path); OSError where it is not ours alone."""
    if create:
        os.makedirs(os.path.dirname(path), mode=0o700, exist_ok=True)
        with contextlib.suppress(FileExistsError):
            os.mkdir(path, 0o700)
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    found = os.fstat(fd)
    if found.st_uid != os.geteuid() or stat.S_IMODE(found.st_mode) & 0o077:
        os.close(fd)
        raise PermissionError(f"{path} is not this user's alone")
    return fd


def _open_file(folder: int, name: str, create: bool = True) -> int:
    # NONBLOCK: a pipe laid there by somebody would hold the open up
    flags = os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK | (os.O_CREAT if create else 0)
    fd = os.open(name, flags, 0o600, dir_fd=folder)
    found = os.fstat(fd)
    if not stat.S_ISREG(found.st_mode) or found.st_uid != os.geteuid() or stat.S_IMODE(found.st_mode) & 0o077 or found.st_nlink > 1:
        os.close(fd)
        raise PermissionError(f"{name} is not this user's alone")
    return fd


def _lock(fd: int, how: int, seconds: float) -> None:
    """Take the flock C(how); TimeoutError after C(seconds)."""
    end = time.monotonic() + seconds
    while True:
        try:
            fcntl.flock(fd, how | fcntl.LOCK_NB)
            return
        except BlockingIOError:
            if time.monotonic() >= end:
                raise TimeoutError("somebody else holds the lock of the session") from None
        time.sleep(0.02)  # flock has no timeout of its own


def _still_there(folder: int, name: str, fd: int) -> bool:
    try:
        there = os.stat(name, dir_fd=folder, follow_symlinks=False)
    except FileNotFoundError:
        return False
    ours = os.fstat(fd)
    return (there.st_dev, there.st_ino) == (ours.st_dev, ours.st_ino)


def _parsed(text: bytes) -> Record | None:
    """The record that C(text) holds; None where it is empty, cut off or none of ours."""
    try:
        plain: Any = json.loads(text) if len(text) <= _MAX_FILE else None
        found = Record(**plain)
    except (ValueError, TypeError, RecursionError):
        return None
    words = (found.host, found.run, found.cookie, found.key, found.manager, found.version, found.wire)
    sound = all(isinstance(w, str) and 0 < len(w) < 4096 and w.isprintable() for w in words)
    return found if sound and isinstance(found.port, int) and isinstance(found.validate_certs, bool) else None


@dataclass(frozen=True)
class Turn:
    """The file of a session while nobody else reads or writes it."""

    _fd: int

    def read(self) -> Record | None:
        return _parsed(os.pread(self._fd, _MAX_FILE + 1, 0))

    def write(self, record: Record) -> None:
        text = json.dumps(asdict(record)).encode()
        os.ftruncate(self._fd, 0)
        os.pwrite(self._fd, text, 0)


class Store:
    """The session of a run, in use from open_store() to release()."""

    def __init__(self, folder: int, stem: str, run: str, use: int) -> None:
        self._folder, self._stem, self.run, self._use = folder, stem, run, use

    @contextlib.contextmanager
    def turn(self) -> Iterator[Turn]:
        """The session's file, for this process alone. OSError where it cannot be had (TimeoutError: another's log-in takes too long)."""
        fd = _open_file(self._folder, f"{self._stem}.session")
        try:
            _lock(fd, fcntl.LOCK_EX, TURN)
            yield Turn(fd)
        finally:
            os.close(fd)

    def sweep(self) -> None:
        """End what runs that are gone have left here."""
        with contextlib.suppress(OSError):
            for stem in _stems(self._folder):
                if stem != self._stem and _forgotten(self._folder, stem):
                    _end(self._folder, stem, mark=False)

    def release(self) -> None:
        """Use it no more. The last one of a run that has ended logs it out."""
        with contextlib.suppress(OSError):
            os.utime(self._use)
        os.close(self._use)
        try:
            os.stat(f"{self._stem}.ended", dir_fd=self._folder, follow_symlinks=False)
            _end(self._folder, self._stem)
        except OSError:
            pass  # the run goes on
        finally:
            os.close(self._folder)


def _stem_of(run: str, what: list[Any], password: str) -> str:
    salt = hashlib.sha256(json.dumps([run, *what]).encode()).digest()
    key = hashlib.pbkdf2_hmac("sha256", password.encode("utf-8", "surrogateescape"), salt, ROUNDS, 16)
    return f"{hashlib.sha256(run.encode()).hexdigest()[:16]}-{key.hex()}"


def open_store(
    host: str, port: int, username: str, password: str, validate_certs: bool, ca_path: str | None, environ: Mapping[str, str] | None = None
) -> Store | None:
    """The store of the run that this process belongs to, for this log-in; None where nothing is to be shared, or not safely."""
    environ = os.environ if environ is None else environ
    run = environ.get(RUN_VARIABLE) or ""
    if not _RUN.fullmatch(run):
        return None
    try:
        folder = _open_folder(folder_of(environ), create=True)
    except OSError:
        return None
    stem = _stem_of(run, [host.casefold(), port, username, validate_certs, ca_path], password)
    try:
        while True:
            use = _open_file(folder, f"{stem}.use")
            try:
                _lock(use, fcntl.LOCK_SH, ENDING)
                if _still_there(folder, f"{stem}.use", use):
                    return Store(folder, stem, run, use)
            except OSError:
                os.close(use)
                raise
            os.close(use)  # it was ended meanwhile
    except OSError:
        os.close(folder)
        return None


# -- ending ---------------------------------------------------------------------------------------------------------


def end_run(run: str, environ: Mapping[str, str] | None = None) -> int:
    """Log out the sessions of C(run) on this machine; how many. One that is still in use is logged out by the last one to leave it."""
    try:
        folder = _open_folder(folder_of(os.environ if environ is None else environ), create=False)
    except OSError:
        return 0
    try:
        own = hashlib.sha256(run.encode()).hexdigest()[:16]
        return sum(_end(folder, stem) for stem in _stems(folder, own))
    except OSError:
        return 0
    finally:
        os.close(folder)


def _stems(folder: int, begin: str = "") -> list[str]:
    found = (_STEM.fullmatch(name) for name in os.listdir(folder) if name.startswith(begin))
    return sorted({m[1] for m in found if m})[:_MOST]


def _forgotten(folder: int, stem: str) -> bool:
    """Whether the run of a session is over: looked at where it is of this machine, else after IDLE seconds without use."""
    try:
        used = os.stat(f"{stem}.use", dir_fd=folder, follow_symlinks=False).st_mtime
    except OSError:
        used = 0.0
    if time.time() - used > IDLE:
        return True
    record = _read(folder, stem)
    host, pid, start = record.run.rsplit("-", 2) if record is not None and record.run.count("-") >= 2 else ("", "", "")
    if host != socket.gethostname() or not (pid.isdecimal() and start.isdecimal()):
        return False
    return start_time(int(pid)) != int(start)


def _read(folder: int, stem: str) -> Record | None:
    try:
        fd = _open_file(folder, f"{stem}.session", create=False)
    except OSError:
        return None
    try:
        return _parsed(os.pread(fd, _MAX_FILE + 1, 0))
    finally:
        os.close(fd)


def _end(folder: int, stem: str, mark: bool = True) -> bool:
    """Log a session out and remove its files, unless it is in use: then, with C(mark), say so to whoever uses it."""
    try:
        use = _open_file(folder, f"{stem}.use")
    except OSError:
        return False
    try:
        try:
            fcntl.flock(use, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if not mark:
                return False
            # Said first, then tried again: whoever leaves between the two sees it.
            os.close(_open_file(folder, f"{stem}.ended"))
            fcntl.flock(use, fcntl.LOCK_EX | fcntl.LOCK_NB)
        record = _read(folder, stem) if _still_there(folder, f"{stem}.use", use) else None
        if record is not None:
            logout(record)
        for kind in ("session", "ended", "use"):
            with contextlib.suppress(FileNotFoundError):
                os.unlink(f"{stem}.{kind}", dir_fd=folder)
        return record is not None
    except OSError:
        return False
    finally:
        os.close(use)


def logout(record: Record) -> None:
    """Log out, without pyVmomi, whose import takes longer. A server that is away is no error: the session expires by itself."""
    try:
        context = trust.context(record.validate_certs, record.ca_path, "log out")
        connection = http.client.HTTPSConnection(record.host, record.port, timeout=LOGOUT, context=context)
    except (OSError, FerryError):
        return
    try:
        head = {"Content-Type": "text/xml; charset=utf-8", "SOAPAction": f'"urn:vim25/{record.wire}"', "Cookie": record.cookie}
        connection.request("POST", "/sdk", _ENVELOPE.format(record.manager.replace("&", "&amp;").replace("<", "&lt;")).encode(), head)
        connection.getresponse().read(_MAX_FILE)
    except (OSError, ValueError, http.client.HTTPException):
        pass
    finally:
        connection.close()
