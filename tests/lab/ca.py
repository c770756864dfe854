# Copyright (c) 2026, ferry.vmware contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The lab's own certificate authority: made once per state folder, so that clients verify TLS as they do at work."""

from __future__ import annotations

import importlib
import os
from pathlib import Path

from .common import LabError, write_private


def ensure(state: Path) -> tuple[Path, Path, Path]:
    """Give the PEM files (CA, server certificate, server key) for 127.0.0.1 and localhost; make them where they are missing."""
    ca_file, cert_file, key_file = state / "ca.pem", state / "tls" / "server.pem", state / "tls" / "server.key"
    if ca_file.exists() and cert_file.exists() and key_file.exists():
        return ca_file, cert_file, key_file
    try:
        trustme = importlib.import_module("trustme")
    except ImportError as e:
        raise LabError("trustme is missing: run the lab with build/venv/bin/python (make venv builds it)") from e
    authority = trustme.CA(organization_name="ferry.vmware lab", key_type=trustme.KeyType.ECDSA)
    server = authority.issue_cert("127.0.0.1", "localhost", "::1", common_name="localhost", key_type=trustme.KeyType.ECDSA)
    write_private(key_file, server.private_key_pem.bytes().decode("ascii"))
    write_private(cert_file, "".join(blob.bytes().decode("ascii") for blob in server.cert_chain_pems))
    write_private(ca_file, authority.cert_pem.bytes().decode("ascii"))
    os.chmod(ca_file, 0o644)
    return ca_file, cert_file, key_file
