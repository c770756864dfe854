# Copyright (c) 2026, ferry.vmware contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The error type of every layer, free of Ansible.

It lives in the data plane because that layer imports nothing above itself; C(module_utils/errors.py) hands it to the
control planes. An error is data: a code that programs test, a sentence that people read, and the facts that the person
at 3 a.m. needs (design, section 8): VM, disk, step, what the server said, what is left behind, the next command.
"""

from __future__ import annotations

from typing import Any

#: No text from outside is shown longer than this: a server may answer with a whole HTML page.
MAX_TEXT = 500


def bounded(text: object, limit: int = MAX_TEXT) -> str:
    """Return C(text) on one line, at most C(limit) characters long, with everything unprintable escaped."""
    raw = text.decode("utf-8", "backslashreplace") if isinstance(text, (bytes, bytearray)) else str(text)
    cut = raw[: limit + 1]
    safe = "".join(c if c.isprintable() else " " if c in "\n\r\t" else c.encode("unicode_escape").decode() for c in cut)
    return safe if len(safe) <= limit else safe[: limit - 1] + "…"


class FerryError(Exception):
    """Something that the user has to know, with the facts as data.

    :param message: one sentence, without the facts that have a field of their own.
    :param code: a stable word that programs test (the class's own unless given).
    :param vm: name of the virtual machine concerned.
    :param disk: label or path of the disk concerned.
    :param step: what was being done, in the infinitive ("read the descriptor").
    :param said: what the server or the operating system answered; bounded here.
    :param left: what is left behind, and who takes it away.
    :param next_command: what the user types next.
    :param details: further facts, values that JSON can hold.
    """

    code = "error"

    def __init__(
        self,
        message: str,
        *,
        code: str | None = None,
        vm: str | None = None,
        disk: str | None = None,
        step: str | None = None,
        said: object | None = None,
        left: str | None = None,
        next_command: str | None = None,
        **details: Any,
    ) -> None:
        super().__init__(message)
        self.message = message
        if code is not None:
            self.code = code
        self.vm = vm
        self.disk = disk
        self.step = step
        self.said = None if said is None else bounded(said)
        self.left = left
        self.next_command = next_command
        self.details = details
        #: What a module returns all the same, beside the failure (rows of the disks that were worked on).
        self.partial: dict[str, Any] = {}

    def add(self, **context: str | None) -> FerryError:
        """Fill the fields of C(context) (vm, disk, step, left, next_command) that are still empty; return self."""
        for name, value in context.items():
            if getattr(self, name) is None:
                setattr(self, name, value)
        return self

    def as_dict(self) -> dict[str, Any]:
        """The facts for a module's C(failure) result; empty fields are left out."""
        fields = {
            "code": self.code,
            "message": bounded(self.message),
            "vm": self.vm,
            "disk": self.disk,
            "step": self.step,
            "said": self.said,
            "left": self.left,
            "next_command": self.next_command,
            "details": {k: bounded(v) if isinstance(v, str) else v for k, v in self.details.items()} or None,
        }
        return {k: v for k, v in fields.items() if v is not None}

    def __str__(self) -> str:
        where = ", ".join(f"{k} {bounded(v, 120)}" for k, v in (("VM", self.vm), ("disk", self.disk), ("step:", self.step)) if v)
        parts = [bounded(self.message)]
        if where:
            parts.append(f"({where})")
        if self.said:
            parts.append(f"Said: {self.said}.")
        if self.left:
            parts.append(f"Left behind: {bounded(self.left)}.")
        if self.next_command:
            parts.append(f"Next: {bounded(self.next_command)}")
        return " ".join(parts)


class BadInput(FerryError):
    """The user asked for something that cannot be: an unknown VM, two disks for one label, a size that does not fit."""

    code = "bad_input"


class VmdkError(FerryError):
    """A VMDK that is damaged, truncated, hostile or of a kind that is not supported.

    :param path: the file that is wrong.
    :param offset: byte offset of what is wrong in that file, where it has one.
    :param found: what stands there.
    :param expected: what should.
    """

    code = "vmdk"

    def __init__(
        self,
        message: str,
        *,
        path: str | None = None,
        offset: int | None = None,
        found: object | None = None,
        expected: object | None = None,
        **kwargs: Any,
    ) -> None:
        facts: dict[str, Any] = {"path": path, "offset": offset, "found": found, "expected": expected}
        kept: dict[str, Any] = {k: bounded(v, 120) if isinstance(v, (str, bytes)) else v for k, v in facts.items() if v is not None}
        tail = ", ".join(f"{k} {v}" for k, v in kept.items())
        super().__init__(f"{message} [{tail}]" if tail else message, **{**kept, **kwargs})


class SourceError(FerryError):
    """A source could not be read, or gave other bytes than asked for. Never taken for data."""

    code = "source"


class SinkError(FerryError):
    """A target could not be written, or read back otherwise than written."""

    code = "sink"


class Interrupted(FerryError):
    """Stopped from outside (signal, lost lease). What is durable stays so; the same command goes on."""

    code = "interrupted"


class Busy(FerryError):
    """Somebody else holds the lease of this disk."""

    code = "busy"


class MissingLibrary(FerryError):
    """A Python library or a program that this path needs is not there."""

    code = "missing_library"
