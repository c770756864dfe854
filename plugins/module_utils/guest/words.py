# Copyright (c) 2026, ferry.vmware contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What virt-v2v says, read: its exit code alone does not tell whether a guest has drivers for virtio (0 without, too). Pure.

Source: virt-v2v 2.2's messages (convert/convert.ml, convert_windows.ml, convert_linux.ml); recorded ones are in the tests.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field

from ..errors import bounded

_MESSAGE = re.compile(r"^virt-v2v(?:-in-place)?: (?:(warning|error): )?(.*)$")
_STEP = re.compile(r"^\[\s*[\d.]+\] (.*)$")
#: What an error is about, by its words; the first that fits.
_CODES = (
    ("no_boot_loader", r"no bootloader|boot ?loader"),
    ("several_systems", r"multi-?boot|dual-?boot|more than one operating system"),
    ("hibernated", r"hibernat|fast restart|fast startup|mounted read-only|could not be mounted read-write|unsafe state"),
    ("encrypted", r"LUKS|BitLocker|encrypt|passphrase|key.*(?:decrypt|not correct)"),
    ("no_space", r"not enough free space|No space left on device"),
    ("unsupported_os", r"unable to convert this guest type|not supported|conversion of .* unsupported"),
    ("unknown_os", r"inspection could not detect|no operating system|no root device"),
)


@dataclass
class Said:
    """What a conversion said. C(virtio): whether the guest has its drivers now; None where it did not come so far."""

    system: str = ""
    virtio: bool | None = None
    warnings: list[str] = field(default_factory=list)
    errors: list[str] = field(default_factory=list)
    steps: list[str] = field(default_factory=list)

    @property
    def code(self) -> str:
        """The code of GuestError for what went wrong."""
        text = " ".join(self.errors)
        return next((code for code, words in _CODES if re.search(words, text, re.IGNORECASE)), "conversion")


def step_of(line: str) -> str | None:
    """The step that a line announces (C([  42.1] Converting ...)); None where it announces none."""
    found = _STEP.match(line)
    return bounded(found[1], 200) if found else None


def read(text: str) -> Said:
    """Read what virt-v2v-in-place wrote on both its outputs. A message goes on in the lines behind it."""
    said = Said()
    into: list[str] | None = None
    for line in text.splitlines():
        step, message = step_of(line), _MESSAGE.match(line)
        if step is not None:
            said.steps.append(step)
            system = re.match(r"Converting (.*?)(?: to run on KVM|$)", step)
            # The step of the conversion names the guest; another one begins with the same word.
            if system and "guest" not in system[1].split(" ")[:2]:
                said.system = system[1]
            into = None
        elif message:
            into = {"warning": said.warnings, "error": said.errors}.get(message[1] or "")
            if into is not None:
                into.append(_plain(message[2]))
        elif into is not None and line.strip():
            into[-1] = _plain(f"{into[-1]} {line}")
        elif not line.strip():
            into = None
    whole = re.sub(r"\s+", " ", text)
    if "This guest does not have virtio drivers installed" in whole:
        said.virtio = False
    elif "This guest has virtio drivers installed" in whole:
        said.virtio = True
    return said


def _plain(text: str) -> str:
    return bounded(re.sub(r"\s+", " ", text).strip(), 500)
