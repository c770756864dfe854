# Copyright (c) 2026, ferry.vmware contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A label on a target file that says whose ledger speaks of it: an extended attribute (xattr(7), the namespace user).

A file that was deleted and made anew may have the same inode, and its modification time says nothing while a copy is under way:
what is missing, or another ledger's, was not written by way of this one.
"""

from __future__ import annotations

import os

#: Name of the attribute.
NAME = "user.ferry.copy"


def read(fd: int) -> str:
    """The label of the open file; empty where it has none, or its file system knows none."""
    try:
        return os.getxattr(fd, NAME).decode("ascii", "replace")
    except OSError:
        return ""


def write(fd: int, text: str) -> bool:
    """Label the open file; False where its file system knows no labels."""
    try:
        os.setxattr(fd, NAME, text.encode("ascii"))
    except OSError:
        return False
    return True


def remove(fd: int) -> None:
    """Take the label away: what the file holds is not what was written."""
    try:
        os.removexattr(fd, NAME)
    except OSError:
        pass  # it had none
