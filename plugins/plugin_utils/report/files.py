# Copyright (c) 2026, ferry.vmware contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Files of reports, replaced at once."""

from __future__ import annotations

import os
import tempfile


def replace(path: str, content: str, durable: bool = False) -> None:
    """Replace C(path) at once: a reader sees the old content or the new one. Its folder is made where it is missing.

    :param durable: only return when it is on the disk.
    :raises OSError: it cannot be written; nothing is left behind.
    """
    folder = os.path.dirname(os.path.abspath(path))
    os.makedirs(folder, exist_ok=True)
    fd, temp = tempfile.mkstemp(prefix=".report-", dir=folder)
    try:
        with os.fdopen(fd, "w", encoding="utf-8") as stream:
            stream.write(content)
            if durable:
                stream.flush()
                os.fsync(stream.fileno())
        os.chmod(temp, 0o644 & ~_umask())
        os.replace(temp, path)
    except BaseException:
        os.unlink(temp)
        raise


def _umask() -> int:
    old = os.umask(0o077)
    os.umask(old)
    return old
