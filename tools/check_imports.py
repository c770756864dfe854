# Copyright (c) 2026, ferry.vmware contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What import-linter cannot say: the data plane runs with plain Python, and no library is imported unguarded.

The data plane is imported by a Python that sees the standard library and C(plugins/module_utils), nothing else. In the
rest of module_utils every import statement is looked at: third-party libraries must come through C(requires.need), which
names a missing one, and which AnsiballZ does not try to bundle.
"""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

TOP = Path(__file__).resolve().parent.parent
UTILS = TOP / "plugins" / "module_utils"
#: The edge is the one file that may know Ansible.
ALLOWED = {"edge.py": {"ansible"}}


def plain() -> list[str]:
    """Import each module of the data plane alone, in one Python without site-packages."""
    names = [
        ".".join(f.relative_to(UTILS).with_suffix("").parts) for f in sorted((UTILS / "disk").rglob("*.py")) if f.name != "__init__.py"
    ]
    code = (
        "import importlib, sys, traceback\n"
        "for name in sys.argv[1:]:\n"
        "    for known in [m for m in sys.modules if m == 'disk' or m.startswith('disk.')]: del sys.modules[known]\n"
        "    try: importlib.import_module(name)\n"
        "    except Exception: print(f'{name} does not import with plain Python:', traceback.format_exc())\n"
    )
    command = [sys.executable, "-S", "-B", "-c", code, *names]
    done = subprocess.run(command, env={"PYTHONPATH": str(UTILS)}, check=False, capture_output=True, text=True)
    return [text for text in (done.stdout.strip(), done.stderr.strip()) if text]


def unguarded() -> list[str]:
    """Import statements of something that is neither ours nor in the standard library."""
    found = []
    for file in sorted(UTILS.rglob("*.py")):
        allowed = ALLOWED.get(str(file.relative_to(UTILS)), set())
        for node in ast.walk(ast.parse(file.read_text(), str(file))):
            if isinstance(node, ast.Import):
                names = [a.name for a in node.names]
            elif isinstance(node, ast.ImportFrom) and not node.level:
                names = [node.module or ""]
            else:
                continue
            for name in names:
                top = name.partition(".")[0]
                if top not in sys.stdlib_module_names and top not in allowed:
                    found.append(f"{file.relative_to(TOP)}:{node.lineno}: imports {name} unguarded; use requires.need")
    return found


if __name__ == "__main__":
    problems = plain() + unguarded()
    print("\n".join(problems) or "the data plane imports with plain Python; no unguarded import")
    sys.exit(bool(problems))
