# Copyright (c) 2026, ferry.vmware contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Bring a Cinder volume to this machine with os-brick: iSCSI, FC, NVMe, RBD, NFS, whatever its back end speaks."""

from __future__ import annotations

import contextlib
import fcntl
import functools
import logging
import os
import pathlib
import shutil
import socket
import stat
import subprocess
import sys
import threading
import urllib.parse
import warnings
from typing import Any, Iterator, Mapping

from ..errors import FerryError, SinkError, bounded
from ..requires import need

#: Connection types whose volume is a file on a mounted file system.
MOUNTED = ("nfs", "glusterfs", "quobyte", "smbfs", "scality", "vzstorage")

_SET_UP = threading.Lock()
_is_set_up = False


@contextlib.contextmanager
def _without_warnings() -> Iterator[None]:
    """os-brick's libraries warn of what they import from each other (eventlet); nobody here can act on that."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def helper(root_helper: str) -> str:
    """The command prefix that makes os-brick root; empty where this process is root already."""
    return "" if os.geteuid() == 0 else root_helper


def set_up(state_dir: str, root_helper: str) -> None:
    """Configure os-brick in this process once: its locks live in C(state_dir), root comes from C(root_helper)."""
    global _is_set_up
    with _SET_UP:
        if _is_set_up:
            return
        for quiet in ("os_brick", "oslo_privsep", "oslo.privsep", "oslo_concurrency"):
            # Without a handler, Python writes their warnings (no iSCSI initiator on this machine ...) to stderr.
            logging.getLogger(quiet).addHandler(logging.NullHandler())
        with _without_warnings():
            need("oslo_privsep.daemon", package="os-brick")
        cfg = need("oslo_config.cfg", package="os-brick")
        brick = need("os_brick", package="os-brick", minimum="6.2")
        privileged = need("os_brick.privileged", package="os-brick")
        locks = os.path.join(state_dir, "brick-lock")
        os.makedirs(locks, mode=0o700, exist_ok=True)
        cfg.CONF([], project="os-brick", default_config_files=[], default_config_dirs=[])
        need("oslo_concurrency.lockutils", package="os-brick").set_defaults(locks)
        brick.setup(cfg.CONF)
        cfg.CONF.set_override("lock_path", locks, "os_brick")
        contexts = [privileged.default]
        hidden = getattr(privileged, "brick_privsep_hide_output", None)
        if hidden is not None:
            contexts.append(hidden)
        prefix = helper(root_helper)
        if prefix:
            cfg.CONF.set_override("helper_command", f"{prefix} {_privsep_helper()}", group="privsep_osbrick")
        else:
            for context in contexts:
                # We are root: os-brick's functions run here instead of in a daemon of their own.
                context.set_client_mode(False)
        _is_set_up = True


def _privsep_helper() -> str:
    beside = os.path.join(os.path.dirname(sys.executable), "privsep-helper")
    found = beside if os.path.exists(beside) else shutil.which("privsep-helper")
    if not found:
        raise FerryError(
            "The program privsep-helper, a part of oslo.privsep, is not found beside this Python or in PATH.",
            code="missing_library",
            next_command=f"{sys.executable} -m pip install os-brick",
        )
    return found


def address_towards(url: str) -> str:
    """The address of this machine on the way to the host of C(url); back ends that export by address use it."""
    host = urllib.parse.urlsplit(url).hostname or "127.0.0.1"
    try:
        family, kind, proto, _name, target = socket.getaddrinfo(host, 9, type=socket.SOCK_DGRAM)[0]
        with socket.socket(family, kind, proto) as probe:
            probe.connect(target)  # sends nothing: a datagram socket only looks up the route
            return str(probe.getsockname()[0])
    except OSError:
        return "127.0.0.1"


@functools.lru_cache(maxsize=8)
def _properties(root_helper: str, host: str, ip: str) -> dict[str, Any]:
    """Asked once: os-brick starts a dozen programs for it."""
    with _without_warnings():
        connector = need("os_brick.initiator.connector", package="os-brick")
        return dict(connector.get_connector_properties(helper(root_helper), ip, False, False, host=host))


def connector_properties(state_dir: str, root_helper: str, host: str, ip: str) -> dict[str, Any]:
    """What Cinder must know of this machine to export a volume to it."""
    set_up(state_dir, root_helper)
    return dict(_properties(root_helper, host, ip))


class Device:
    """A volume at this machine.

    :param info: C(connection_info) of the Cinder attachment.
    """

    def __init__(self, info: Mapping[str, Any], state_dir: str, root_helper: str) -> None:
        set_up(state_dir, root_helper)
        self.info = dict(info)
        self.protocol = str(info.get("driver_volume_type") or "").lower()
        self._root_helper = helper(root_helper)
        self._state_dir = state_dir
        self._mounts = os.path.join(state_dir, "mnt")
        self._mount_lock: int | None = None
        self._handle: Any = None
        data = self.info.get("data") or {}
        self.format = str(self.info.get("format") or data.get("format") or "raw")
        base = self._mounts
        with _without_warnings():
            self._connector = need("os_brick.initiator.connector", package="os-brick").InitiatorConnector.factory(
                self.protocol,
                self._root_helper,
                use_multipath=False,
                do_local_attach=True,
                conn={**data, "mount_point_base": base},
                **{f"{kind}_mount_point_base": base for kind in MOUNTED if kind == self.protocol},
            )

    def connect(self) -> str:
        """Attach; the path of the device or file."""
        if self.info.get("encrypted") or (self.info.get("data") or {}).get("encrypted"):
            raise SinkError(
                "The volume's type is encrypted: the encryption layer would have to be opened here first.",
                code="encrypted_volume",
                next_command="Map this datastore to a volume type without encryption, or copy into an image.",
            )
        if self.format != "raw":
            raise SinkError(
                f"The volume's file is {bounded(self.format, 40)}, not raw (a snapshot on a file back end?): writing to it would destroy it.",
                code="not_raw",
                next_command="Remove the volume's snapshots, or let the volume be created anew.",
            )
        if self.protocol in MOUNTED:
            os.makedirs(self._mounts, mode=0o755, exist_ok=True)
            self._hold_mounts()
        try:
            self._handle = self._connector.connect_volume(self.info["data"])
        except Exception as e:  # os-brick's, oslo's and the drivers' errors have no common base
            self._release_mounts()
            raise SinkError("The volume could not be connected to this machine.", step="connect the volume", said=_words(e)) from e
        path = self._handle.get("path")
        if not isinstance(path, (str, bytes)):
            self.disconnect(force=True)
            raise SinkError(f"os-brick gives no path for a volume of the kind {self.protocol}.", step="connect the volume")
        return os.fsdecode(path)

    def disconnect(self, *, force: bool = False) -> None:
        """Flush and detach. With C(force) what a killed process left is taken away, as far as it is there."""
        try:
            self._connector.disconnect_volume(self.info["data"], self._handle, force=force, ignore_errors=force)
        except Exception as e:  # see connect()
            raise SinkError("The volume could not be disconnected from this machine.", step="disconnect the volume", said=_words(e)) from e
        finally:
            self._handle = None
            self._release_mounts()

    def _hold_mounts(self) -> None:
        """A shared lock while a file of the mount is in use: who gets it exclusively is the last and unmounts."""
        fd = os.open(os.path.join(self._state_dir, "mnt.lock"), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        fcntl.flock(fd, fcntl.LOCK_SH)
        self._mount_lock = fd

    def _release_mounts(self) -> None:
        fd, self._mount_lock = self._mount_lock, None
        if fd is None:
            return
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            return  # another volume of this machine is in use; its owner unmounts
        else:
            for mount in _mounts_below(self._mounts):
                prefix = self._root_helper.split()
                subprocess.run([*prefix, "umount", mount], check=False, capture_output=True, timeout=60)
        finally:
            os.close(fd)


def _mounts_below(base: str) -> list[str]:
    """Mount points in the folder C(base), from the kernel's table (which escapes blanks as octal numbers)."""
    real = os.path.realpath(base)
    rows = [line.split() for line in pathlib.Path("/proc/self/mounts").read_text(encoding="utf-8", errors="replace").splitlines()]
    points = [row[1].encode().decode("unicode_escape") for row in rows if len(row) > 1]
    return [p for p in points if os.path.dirname(p) == real]


def _words(error: Exception) -> str:
    stderr = getattr(error, "stderr", None)
    return bounded(stderr or error)


def size_of(path: str) -> int:
    """Bytes of a block device or a file."""
    with open(path, "rb") as f:
        return f.seek(0, os.SEEK_END)


def is_block(path: str) -> bool:
    return stat.S_ISBLK(os.stat(path).st_mode)
