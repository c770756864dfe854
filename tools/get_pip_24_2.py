# Copyright (c) 2026, ferry.vmware contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Stands in for the get-pip script that ansible-test downloads: machines that reach a package index reach no more.

The pip that comes with Python is put in by ensurepip, in a child process: run in this one, ensurepip would make the rest
forget pip's own settings (index, CA).
"""

import subprocess
import sys

if __name__ == "__main__":
    subprocess.check_call([sys.executable, "-m", "ensurepip"])
    wanted = [argument for argument in sys.argv[1:] if not argument.startswith("--no-")]
    subprocess.check_call([sys.executable, "-m", "pip", "install"] + wanted)
