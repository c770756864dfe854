# Copyright (c) 2026, ferry.vmware contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""C(python3 -m disk.vmdk). Only in a checkout: Galaxy takes no file of this name, so the archive is built without it."""

from __future__ import annotations

from .cli import main

if __name__ == "__main__":
    raise SystemExit(main())
