# Copyright (c) 2026, ferry.vmware contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Our block of text in a VM's annotation, between markers of its own; all other text stays as it is. Pure functions."""

from __future__ import annotations

import re

from ..errors import BadInput

BEGIN = "--- ferry.vmware: begin ---"
END = "--- ferry.vmware: end ---"

#: The block with the one line end that was put before it. vSphere keeps line ends as they come, clients may write CRLF.
_BLOCK = re.compile(r"(?:\r?\n)?" + re.escape(BEGIN) + r"\r?\n(.*?)(?:\r?\n)?" + re.escape(END), re.DOTALL)


def note_of(annotation: str | None) -> str | None:
    """The text of our block, None where there is none."""
    found = _BLOCK.search(annotation or "")
    return found.group(1).replace("\r\n", "\n") if found else None


def with_note(annotation: str | None, note: str | None) -> str:
    """C(annotation) with C(note) as our only block (in its old place, else at the end), or without any for None or an empty one."""
    text = annotation or ""
    wanted = (note or "").strip("\r\n")
    if BEGIN in wanted or END in wanted:
        raise BadInput(f"A note cannot hold the lines that mark it ({BEGIN}, {END}).", step="write the annotation")
    if wanted and note_of(text) == wanted and len(_BLOCK.findall(text)) == 1:
        return text
    block = f"{BEGIN}\n{wanted}\n{END}"
    found = _BLOCK.search(text)
    if found is None:
        return text if not wanted else f"{text}\n{block}" if text else block
    before, after = text[: found.start()], _BLOCK.sub("", text[found.end() :])
    if not wanted:
        # nothing of ours is left in front: the line end that followed the block has nothing to part any more
        return before + after if before else re.sub(r"^\r?\n", "", after)
    return (before + "\n" if before else "") + block + after
