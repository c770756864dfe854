# Copyright (c) 2026, ferry.vmware contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What AWX makes of a credential for a job: CredentialType.inject_credential in awx/main/models/credential.py of AWX 24.6.1."""

from __future__ import annotations

import os
import types
from pathlib import Path
from typing import Any

from jinja2 import sandbox


def inject(type_: dict[str, Any], inputs: dict[str, Any], folder: Path) -> dict[str, str]:
    """The environment of the job; files go into C(folder), mode 0600.

    Empty texts are undefined in the templates, booleans that were not given are false, and what is undefined becomes an empty text.
    """
    known: dict[str, Any] = {k: v for k, v in inputs.items() if isinstance(v, bool) or v}
    for field in type_["inputs"]["fields"]:
        if field["type"] == "boolean":
            known.setdefault(field["id"], False)
    files = types.SimpleNamespace()
    known["tower"] = types.SimpleNamespace(filename=files)
    render = sandbox.ImmutableSandboxedEnvironment()
    for label, text in type_["injectors"].get("file", {}).items():
        path = folder / f"{type_['name'].replace(' ', '_')}.{label}"
        with open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w", encoding="utf-8") as f:
            f.write(render.from_string(text).render(**known))
        setattr(files, label.partition(".")[2], str(path))
    return {name: render.from_string(text).render(**known) for name, text in type_["injectors"].get("env", {}).items()}
