# Copyright (c) 2026, ferry.vmware contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A session with guestfish: one appliance, asked step by step over its standard input, so that what to ask next can depend on an answer.

guestfish flushes its output after each command (libguestfs, fish/fish.c), says errors on its standard error, and goes on after a command
that begins with C(-). A word of our own behind each command tells where its answer ends.
"""

from __future__ import annotations

import os
import re
import secrets
import selectors
import subprocess
import tempfile
import time
from types import TracebackType
from typing import Callable, Mapping, Sequence

from ..errors import bounded
from . import tools
from .model import Disk, GuestError

#: Bytes of an answer that are taken; libguestfs' own limit for a message is 4 MiB.
MAX_ANSWER = 8 << 20
#: Bytes of a file of the guest that are read at most.
MAX_FILE = 1 << 20
_LOOK = 0.5
#: libguestfs' words where its appliance is gone (lib/proto.c, lib/launch.c).
_GONE = re.compile(r"appliance closed the connection|call launch before using this function")


class Refused(Exception):
    """guestfish could not do what it was asked; the guest is as it was."""


def quoted(text: str) -> str:
    """A word for guestfish in double quotes (guestfish(1), "Quoting"): what is in a guest's file names is data."""
    out = []
    for byte in text.encode("utf-8", "surrogateescape"):
        char = chr(byte)
        if char in '"\\':
            out.append("\\" + char)
        elif 32 <= byte < 127:
            out.append(char)
        else:
            out.append(f"\\x{byte:02x}")
    return '"' + "".join(out) + '"'


class Guestfish:
    """The disks of a guest, opened. A context manager.

    :param writable: without it whatever is written goes to a layer that is thrown away.
    :param check: called twice a second while an answer is awaited; what it raises ends the session.
    :param timeout: seconds for one answer.
    """

    def __init__(
        self, disks: Sequence[Disk], *, writable: bool = False, check: Callable[[], None] = lambda: None, timeout: float = 900.0
    ) -> None:
        tools.need("guestfish", "setpriv")
        self._disks = disks
        self._writable = writable
        self._check = check
        self._timeout = timeout
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Guestfish:
        try:
            try:
                self._start()
            except (Refused, GuestError):
                if tools.emulated():
                    raise
                self.close()
                self._check()
                tools.emulate()
                self._start()
        except Refused as e:
            self.close()
            raise GuestError(
                "The appliance of libguestfs did not start.",
                code="appliance",
                step="open the disks",
                said=str(e),
                next_command="libguestfs-test-tool says why",
            ) from e
        except BaseException:
            self.close()
            raise
        return self

    def _start(self) -> None:
        self._process = subprocess.Popen(
            tools.bound_to_us(["guestfish"]),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env=tools.environment(),
            start_new_session=True,
        )
        for disk in self._disks:
            how = [f"format:{disk.format}", f"readonly:{'false' if self._writable else 'true'}"]
            self.ask("add-drive", disk.path, raw=[*how, "protocol:nbd", f"server:unix:{disk.socket}"] if disk.socket else how)
        self.ask("run")

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        try:
            if kind is None and self._writable:
                try:
                    self.ask("umount-all")
                    self.ask("shutdown")
                except Refused as e:
                    raise GuestError("The guest's disks could not be closed.", step="close the disks", said=str(e)) from e
        finally:
            self.close()

    def close(self) -> None:
        process, self._process = self._process, None
        if process is None:
            return
        if process.stdin is not None:
            try:
                process.stdin.close()
            except OSError:
                pass  # it has ended by itself
        try:
            process.wait(10)  # its input has ended, so it does
        except subprocess.TimeoutExpired:
            pass
        tools.end(process)
        if process.stderr is not None:
            process.stderr.close()

    def ask(self, command: str, *words: str, raw: Sequence[str] = ()) -> str:
        """The answer to a command.

        :param words: its parameters; quoted here. C(raw): those that guestfish has by name (C(format:raw)).
        :raises Refused: with what guestfish said.
        :raises GuestError: guestfish ended, or does not answer.
        """
        process = self._process
        if process is None or process.stdin is None or process.stdout is None or process.stderr is None:
            raise GuestError("guestfish is not running.", step=command)
        mark = "ferry-" + secrets.token_hex(12)
        line = " ".join([f"-{command}", *map(quoted, words), *raw]) + f"\n-echo {mark}\n"
        try:
            process.stdin.write(line.encode("ascii"))
            process.stdin.flush()
        except OSError as e:
            raise self._ended(command, b"") from e
        answer, wrong = self._read(process, command, mark)
        if command != "run" and _GONE.search(wrong):
            # Each further question would be refused too: that is no answer about the guest.
            raise GuestError("The appliance of libguestfs has died.", code="appliance", step=command, said=wrong[-500:])
        if re.search(r"^(libguestfs: error:|guestfish: )|: (error|unknown command)\b", wrong, re.MULTILINE):
            raise Refused(bounded(re.sub(r"libguestfs: error: ", "", wrong).strip(), 500))
        return answer

    def get(self, command: str, *words: str) -> str | None:
        """The answer, or None where guestfish could not do it."""
        try:
            return self.ask(command, *words)
        except Refused:
            return None

    def lines(self, command: str, *words: str) -> list[str]:
        """The lines of an answer; none where guestfish could not do it."""
        return [line for line in (self.get(command, *words) or "").splitlines() if line]

    def table(self, command: str, *words: str) -> dict[str, str]:
        """An answer of C(name: value) lines."""
        pairs = (line.partition(": ") for line in self.lines(command, *words))
        return {name.strip().rstrip(":"): value.strip() for name, _colon, value in pairs}

    def yes(self, command: str, *words: str) -> bool:
        return (self.get(command, *words) or "").strip() == "true"

    def text(self, path: str) -> str | None:
        """A file of the guest, of 1 MiB at most; None where it is not there, no file, or longer."""
        size = (self.get("filesize", path) or "").strip()
        if not size.isdigit() or int(size) > MAX_FILE or not self.yes("is-file", path):
            return None
        # guestfish puts a line's end behind a file that it shows.
        shown = self.get("cat", path)
        return None if shown is None else shown.encode("utf-8", "surrogateescape")[: int(size)].decode("utf-8", "surrogateescape")

    def write(self, path: str, text: str) -> None:
        """Write a file of the guest; the owner and mode of one that is there stay. A line of guestfish's is too short for it."""
        with tempfile.NamedTemporaryFile(prefix="ferry-guest-") as temp:
            temp.write(text.encode("utf-8", "surrogateescape"))
            temp.flush()
            self.ask("upload", temp.name, path)

    def texts(self, *patterns: str) -> Mapping[str, str]:
        """The files of the guest that the patterns (glob(7)) find, by path."""
        found = {}
        for pattern in patterns:
            for path in self.lines("glob-expand", pattern)[:200]:
                text = self.text(path)
                if text is not None:
                    found[path] = text
        return found

    def _read(self, process: subprocess.Popen[bytes], command: str, mark: str) -> tuple[str, str]:
        out, err = process.stdout, process.stderr
        if out is None or err is None:
            raise self._ended(command, b"")
        answer, wrong, end = bytearray(), bytearray(), time.monotonic() + self._timeout
        with selectors.DefaultSelector() as selector:
            selector.register(out, selectors.EVENT_READ)
            selector.register(err, selectors.EVENT_READ)
            while not answer.endswith((mark + "\n").encode()):
                self._check()
                if time.monotonic() > end:
                    raise GuestError(f"guestfish has not answered within {self._timeout:.0f} s.", code="timeout", step=command)
                for key, _events in selector.select(_LOOK):
                    data = os.read(key.fd, 1 << 16)
                    if not data and key.fileobj is out:
                        raise self._ended(command, bytes(wrong))
                    if not data:
                        selector.unregister(err)
                    elif key.fileobj is out:
                        answer += data
                    else:
                        wrong += data[: 1 << 16]
                if len(answer) > MAX_ANSWER:
                    raise GuestError("guestfish answers without an end.", step=command)
            # What it said of this command was written before our mark.
            os.set_blocking(err.fileno(), False)
            try:
                wrong += os.read(err.fileno(), 1 << 16)
            except BlockingIOError:
                pass
            finally:
                os.set_blocking(err.fileno(), True)
        text = bytes(answer[: -len(mark) - 1]).decode("utf-8", "surrogateescape")
        return text, bytes(wrong).decode("utf-8", "replace")

    def _ended(self, command: str, wrong: bytes) -> GuestError:
        return GuestError(
            "guestfish has ended by itself.",
            code="appliance",
            step=command,
            said=wrong[-500:],
            next_command="libguestfs-test-tool says whether libguestfs works on this machine",
        )
