# Copyright (c) 2026, ferry.vmware contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""An nbdkit of our own for one disk: started on a Unix socket that nobody else can reach, and stopped on all ways out.

Options: nbdkit(1), nbdkit-vddk-plugin(1). No secret is in the command line, which any user of the machine can read: a password is
in a file of mode 0600, of which the command line has the path.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
import re
import secrets
import shutil
import signal
import socket
import ssl
import stat
import subprocess
import tempfile
import time
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Callable, Iterator, Mapping, Sequence

from .errors import BadInput, FerryError, MissingLibrary, bounded

_PREFIX = "ferry-nbd-"
#: What is shown of nbdkit's own words, from their end (bytes).
_WORDS = 2000
#: sun_path of unix(7).
_LONGEST_SOCKET = 107
_THUMBPRINT = re.compile(r"^[0-9A-F]{2}(:[0-9A-F]{2}){19}$")
_MOREF = re.compile(r"^[A-Za-z0-9_-]{1,80}$")
_PLUGIN = re.compile(r"^[a-z0-9][a-z0-9-]*$|^/")
TRANSPORTS = ("file", "san", "hotadd", "nbdssl", "nbd")


def program() -> str:
    """The path of nbdkit. Raises MissingLibrary where there is none."""
    found = shutil.which("nbdkit", path=os.pathsep.join([os.environ.get("PATH", os.defpath), "/usr/sbin", "/sbin"]))
    if found is None:
        raise MissingLibrary(
            "The program nbdkit is needed on this machine.",
            step="start nbdkit",
            next_command="apt-get install nbdkit, dnf install nbdkit, or ansible-playbook ferry.vmware.vddk",
        )
    return found


def need_plugin(plugin: str) -> None:
    """Raise MissingLibrary where nbdkit or its C(plugin) is not on this machine (nbdkit --dump-plugin, nbdkit-probing(1))."""
    command = [program(), plugin, "--dump-plugin"]
    try:
        done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, errors="replace", timeout=30, check=False)
    except subprocess.TimeoutExpired:
        return  # it is there, and slow: the start will tell
    if done.returncode and _no_plugin(plugin, done.stderr):
        raise _missing_plugin(plugin, done.stderr[-_WORDS:])


def _no_plugin(plugin: str, said: str) -> bool:
    return "cannot open plugin" in said or f"nbdkit-{plugin}-plugin" in said


def _missing_plugin(plugin: str, said: str) -> MissingLibrary:
    package = {"vddk": "nbdkit-vddk-plugin (Fedora, RHEL), nbdkit-plugin-vddk (Debian 13 and Ubuntu 25.04 on)"}
    return MissingLibrary(
        f"nbdkit's plugin {plugin} is needed on this machine.",
        step="start nbdkit",
        said=said,
        next_command=f"install {package.get(plugin, 'nbdkit')}",
    )


@dataclass(frozen=True)
class Vddk:
    """What VDDK needs to read disks of a server; the disk itself is named for each export.

    C(libdir): the folder that holds lib64/libvixDiskLib.so. C(thumbprint): SHA-1 of the server's certificate; VDDK verifies
    nothing else. C(password_file): mode 0600, the password alone; None where Nbdkit is given the password itself.
    """

    libdir: str
    server: str
    user: str
    thumbprint: str
    password_file: str | None = None
    transports: tuple[str, ...] = ()
    port: int = 443
    config: str | None = None

    def arguments(self, vm: str, file: str, *, snapshot: str | None = None) -> list[str]:
        """The plugin's parameters for the disk C(file) ("[datastore] folder/name.vmdk") of the VM with the MoRef C(vm).

        :param snapshot: MoRef; C(file) is then the disk's file as the snapshot's config has it.
        :raises BadInput: one of them cannot be.
        """
        if not os.path.isfile(os.path.join(self.libdir, "lib64", "libvixDiskLib.so")):
            raise BadInput(
                "There is no VDDK in this folder.",
                step="start nbdkit",
                said=self.libdir,
                expected="lib64/libvixDiskLib.so in it",
                next_command="ansible-playbook ferry.vmware.vddk -e vddk_tarball=...",
            )
        thumbprint = colons(self.thumbprint)
        for moref in (vm, snapshot):
            if moref is not None and not _MOREF.match(moref):
                raise BadInput("Not a MoRef.", step="start nbdkit", said=moref)
        unknown = [t for t in self.transports if t not in TRANSPORTS]
        if unknown:
            raise BadInput(f"No transport of VDDK: {', '.join(unknown)}.", step="start nbdkit", expected=", ".join(TRANSPORTS))
        found = [
            f"libdir={self.libdir}",
            f"server={self.server}",
            f"user={self.user}",
            f"thumbprint={thumbprint}",
            f"vm=moref={vm}",
        ]
        if self.password_file is not None:
            private(self.password_file)
            found.append(f"password=+{os.path.abspath(self.password_file)}")
        if self.port != 443:
            found.append(f"port={self.port}")
        if self.config is not None:
            found.append(f"config={self.config}")
        if snapshot is not None:
            found.append(f"snapshot={snapshot}")
        if self.transports:
            found.append(f"transports={':'.join(self.transports)}")
        if any("\n" in a or "\0" in a for a in [*found, file]):
            raise BadInput("A line break in the export's parameters.", step="start nbdkit")
        return [*found, f"file={file}"]


def colons(thumbprint: str) -> str:
    """C(thumbprint) as VDDK wants it: twenty pairs of digits with colons.

    :raises BadInput: it is none of SHA-1.
    """
    digits = thumbprint.replace(":", "").strip().upper()
    found = ":".join(digits[i : i + 2] for i in range(0, len(digits), 2))
    if not _THUMBPRINT.match(found):
        raise BadInput("The thumbprint is not one of SHA-1 (20 pairs of hexadecimal digits).", step="start nbdkit", said=thumbprint)
    return found


def private(path: str) -> None:
    """Raise BadInput where the file C(path), which holds a secret, is missing or others may read it."""
    try:
        info = os.stat(path)
    except OSError as e:
        raise BadInput("The file with the password cannot be read.", step="start nbdkit", said=e.strerror, path=path) from e
    if not stat.S_ISREG(info.st_mode) or info.st_mode & 0o077:
        raise BadInput(
            "The file with the password can be read by others.",
            step="start nbdkit",
            said=oct(stat.S_IMODE(info.st_mode)),
            path=path,
            next_command=f"chmod 600 {path}",
        )


def write_secret(folder: str, secret: str) -> str:
    """A new file of mode 0600 in C(folder) with C(secret) alone; its path."""
    path = os.path.join(folder, f"secret-{secrets.token_hex(8)}")
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    with os.fdopen(fd, "w", encoding="utf-8") as f:
        f.write(secret)
    return path


class Nbdkit:
    """A running nbdkit that exports one disk read-only at C(uri). Use it as a context manager, in a thread that outlives it:
    the kernel ends nbdkit when the thread that started it ends, which is how a SIGKILL of this process ends it too.

    :param plugin: nbdkit's plugin: C(vddk), C(file) ...
    :param arguments: the plugin's parameters.
    :param password: for a plugin that has the parameter C(password): it is in a private file until nbdkit has started.
    :param filters: nbdkit's filters, outermost first; their parameters go with C(arguments).
    :param base: folder for the private one; a short path, by default the user's runtime folder or /tmp.
    :param timeout: seconds until it has to answer. VDDK connects to vCenter before it does.
    :param stop: called while waiting; what it raises stops nbdkit again.
    :raises MissingLibrary: there is no nbdkit, or not this plugin.
    :raises FerryError: it does not start; says what it said.
    """

    def __init__(
        self,
        plugin: str,
        arguments: Sequence[str],
        *,
        password: str | None = None,
        filters: Sequence[str] = (),
        base: str | None = None,
        timeout: float = 120.0,
        stop: Callable[[], None] = lambda: None,
    ) -> None:
        # Anything that begins with a dash is an option of nbdkit's, wherever it stands.
        if not _PLUGIN.match(plugin) or any(a.startswith("-") for a in arguments):
            raise BadInput("Not a plugin and its parameters.", step="start nbdkit", said=" ".join([plugin, *arguments]))
        found = program()
        base = base or os.environ.get("XDG_RUNTIME_DIR") or tempfile.gettempdir()
        sweep(base)
        self.folder = tempfile.mkdtemp(prefix=_PREFIX, dir=base)
        self.socket = os.path.join(self.folder, "s")
        self.plugin = plugin
        self.command = [found, "--foreground", "--readonly", "--exit-with-parent", "--unix", self.socket]
        self.command += [*(f"--filter={f}" for f in filters), plugin, *arguments]
        self._process: subprocess.Popen[bytes] | None = None
        self._lock = -1
        try:
            if len(os.fsencode(self.socket)) > _LONGEST_SOCKET:
                raise BadInput("The path of the socket is too long.", step="start nbdkit", said=self.socket)
            self._lock = os.open(os.path.join(self.folder, "lock"), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if password is None:
                self._start(timeout, stop)
            else:
                secret = write_secret(self.folder, password)
                self.command.append(f"password=+{secret}")
                self._start(timeout, stop)
                os.unlink(secret)  # it was read when the parameters were
        except BaseException:
            self.close()
            raise

    @property
    def uri(self) -> str:
        return f"nbd+unix:///?socket={self.socket}"

    @property
    def said(self) -> str:
        """The end of what nbdkit wrote to its standard error."""
        try:
            with open(os.path.join(self.folder, "stderr"), "rb") as f:
                f.seek(max(0, f.seek(0, os.SEEK_END) - _WORDS))
                return bounded(f.read().strip())
        except OSError:
            return ""

    def _start(self, timeout: float, stop: Callable[[], None]) -> None:
        kept = {name: os.environ[name] for name in ("PATH", "HOME", "TMPDIR", "LD_LIBRARY_PATH") if name in os.environ}
        with open(os.path.join(self.folder, "stderr"), "wb") as words:
            self._process = subprocess.Popen(
                self.command, stdin=subprocess.DEVNULL, stdout=words, stderr=words, env={**kept, "LC_ALL": "C"}, start_new_session=True
            )
        end = time.monotonic() + timeout
        while not self._answers():
            if self._process.poll() is not None:
                raise self._failed("nbdkit ended before it answered.")
            if time.monotonic() > end:
                raise self._failed(f"nbdkit does not answer within {timeout:.0f} s.")
            stop()
            time.sleep(0.05)  # nbdkit tells nobody when it answers

    def _answers(self) -> bool:
        with socket.socket(socket.AF_UNIX) as s:
            s.settimeout(5)
            try:
                s.connect(self.socket)
                # The server speaks first (NBD, doc/proto.md, "Newstyle negotiation").
                return s.recv(8, socket.MSG_WAITALL) == b"NBDMAGIC"
            except OSError:
                return False

    def _failed(self, text: str) -> FerryError:
        said = self.said
        if _no_plugin(self.plugin, said):
            return _missing_plugin(self.plugin, said)
        return FerryError(text, code="nbdkit", step="start nbdkit", said=said or None)

    def close(self) -> None:
        """Stop it and remove its folder."""
        process, self._process = self._process, None
        if process is not None and process.poll() is None:
            process.terminate()
            try:
                process.wait(5)
            except subprocess.TimeoutExpired:
                # A call into VDDK does not come back; the session is ours, so its helpers go too.
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()
        shutil.rmtree(self.folder, ignore_errors=True)
        if self._lock >= 0:
            os.close(self._lock)
            self._lock = -1

    def __enter__(self) -> Nbdkit:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()


@contextlib.contextmanager
def serve_vddk(
    vddk: Mapping[str, Any],
    *,
    server: str,
    user: str,
    password: str,
    vm: str,
    file: str,
    port: int = 443,
    snapshot: str | None = None,
    context: ssl.SSLContext | None = None,
    base: str | None = None,
    stop: Callable[[], None] = lambda: None,
) -> Iterator[str]:
    """The URI of a disk that is exported by VDDK for as long as the block lasts.

    :param vddk: C(libdir); C(thumbprint) (absent: that of the certificate that C(server) shows and C(context) verifies);
        C(transports), a list, or joined by colons; C(config), a file of VDDK's own settings.
    :param vm: MoRef; C(snapshot) too. C(file): "[datastore] folder/name.vmdk".
    :raises FerryError: nbdkit, its plugin or VDDK is missing, or it does not start.
    """
    thumbprint = vddk.get("thumbprint") or thumbprint_of(server, port, context)
    transports = vddk.get("transports") or ()
    if isinstance(transports, str):
        transports = transports.split(":")
    wanted = Vddk(str(vddk["libdir"]), server, user, thumbprint, None, tuple(transports), port, vddk.get("config"))
    with Nbdkit("vddk", wanted.arguments(vm, file, snapshot=snapshot), password=password, base=base, stop=stop) as running:
        yield running.uri


def thumbprint_of(server: str, port: int, context: ssl.SSLContext | None) -> str:
    """SHA-1 of the certificate of C(server), which C(context) verifies first.

    :raises BadInput: nothing says whom to trust, or the server is not to be reached or not trusted.
    """
    if context is None or context.verify_mode != ssl.CERT_REQUIRED:
        raise BadInput("VDDK needs the thumbprint of the server's certificate.", step="start nbdkit", expected="vddk.thumbprint")
    try:
        with socket.create_connection((server, port), 30) as plain, context.wrap_socket(plain, server_hostname=server) as s:
            shown = s.getpeercert(binary_form=True) or b""
    except OSError as e:
        raise BadInput("The thumbprint of the server's certificate cannot be had.", step="start nbdkit", said=e) from e
    return colons(hashlib.sha1(shown, usedforsecurity=False).hexdigest())


def sweep(base: str) -> None:
    """Remove the folders of runs that were killed: nobody holds their lock any more."""
    try:
        names = [name for name in os.listdir(base) if name.startswith(_PREFIX)]
    except OSError:
        return
    for name in names:
        folder = os.path.join(base, name)
        try:
            info = os.lstat(folder)
            if info.st_uid != os.getuid() or not stat.S_ISDIR(info.st_mode):
                continue
            fd = os.open(os.path.join(folder, "lock"), os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW)
        except OSError:
            continue  # somebody else's, or one that is being made
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            shutil.rmtree(folder, ignore_errors=True)
        except OSError:
            pass  # it is in use
        finally:
            os.close(fd)
