#!/usr/bin/python
# Copyright (c) 2026, ferry.vmware contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: vmdk_convert
short_description: Write a disk in another format, in parallel and whole or not at all
version_added: 0.1.0
author:
  - ferry.vmware contributors (@ferry-vmware)
description:
  - Converts a VMDK, a raw disk or a qcow2 image into another of these formats, and names the controller on the way.
  - Holes and zeroes are not stored. Memory does not grow with the disk.
  - The result appears under its name when it is complete and durable, never in part.
  - A O(dest) that already is what was asked for, by its content, is left alone. One that was altered is written anew.
requirements:
  - C(qemu-img), for qcow2 only
  - The Python library isal makes compression several times as fast; it is used where it is there.
extends_documentation_fragment:
  - ferry.vmware.attributes
  - ferry.vmware.long_task
attributes:
  check_mode:
    support: full
    details: Returns a RV(bytes_out) that is predicted from samples, within about 5 percent.
  diff_mode:
    support: none
    details: The before of a disk is too long to show.
  idempotency:
    support: full
options:
  src:
    description:
      - The disk to read. Of a disk of several files, its descriptor.
      - A file whose name ends in C(-flat.vmdk) or C(.raw) is a raw disk, whatever it holds; others are told by their content.
    type: path
    required: true
  dest:
    description:
      - The file to write. For O(format=monolithicFlat) this is the descriptor; the data goes to C(-flat.vmdk) beside it.
      - A disk of another size, or a file that is no disk, is overwritten only with O(force=true).
    type: path
    required: true
  format:
    description: The format of O(dest).
    type: str
    choices: [streamOptimized, monolithicSparse, monolithicFlat, raw, qcow2]
    required: true
  adapter_type:
    description:
      - The disk controller that the VMDK names. Without it, that of O(src) if it has one, else C(lsilogic).
    type: str
    choices: [ide, buslogic, lsilogic, lsisas1068, pvscsi]
  hw_version:
    description: The virtual hardware version that the VMDK names. Without it, that of O(src) if it has one, else 4.
    type: int
  compression_level:
    description: For O(format=streamOptimized), from 1 (fast, the default) to 9 (small).
    type: int
  threads:
    description: Threads that read, compress and write. By default as many as there are cores.
    type: int
  thin:
    description: V(false) allocates all blocks of a C(raw) or C(monolithicFlat) file.
    type: bool
    default: true
  checksum:
    description: Also compute this over the whole disk. It is slower than everything else; RV(digest) comes at no cost.
    type: str
    choices: [sha256]
  allow_extents:
    description: Files or folders outside the folder of O(src) that its descriptor may name.
    type: list
    elements: path
    default: []
  force:
    description: Convert in any case, and over whatever stands at O(dest).
    type: bool
    default: false
seealso:
  - module: ferry.vmware.vmdk_info
"""

EXAMPLES = r"""
- name: Make a cloud image a VMDK that says paravirtual, not IDE
  ferry.vmware.vmdk_convert:
    src: /images/ubuntu.img
    dest: /images/ubuntu.vmdk
    format: streamOptimized
    adapter_type: pvscsi

- name: Unpack an exported disk
  ferry.vmware.vmdk_convert:
    src: /exports/centos/CentOS-disk1.vmdk
    dest: /images/centos.raw
    format: raw
    checksum: sha256
"""

RETURN = r"""
create_type:
  description: The format of O(dest).
  returned: success
  type: str
  sample: streamOptimized
capacity:
  description: Size of the disk in bytes.
  returned: success
  type: int
  sample: 10737418240
bytes_in:
  description: Bytes of data read from O(src), without holes; 0 where nothing was to be done.
  returned: success
  type: int
  sample: 1610612736
bytes_out:
  description: Bytes stored at O(dest), without holes; in check mode a prediction.
  returned: success
  type: int
  sample: 734003200
digest:
  description: The disk's digest, which is the same in every format.
  returned: success, null in check mode where O(dest) would be written
  type: str
  sample: xxh3-128:d38c384c5949852b7d8127fc692f1015
checksum:
  description: The O(checksum) of the whole disk.
  returned: where asked for and computed
  type: str
  sample: sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855
problems:
  description: What is odd about O(src), though it could be read. Shown as warnings, too.
  returned: success
  type: list
  elements: str
seconds:
  description: Time taken, in seconds.
  returned: success
  type: float
  sample: 2.5
"""

import os
from typing import Any

from ansible_collections.ferry.vmware.plugins.module_utils import edge
from ansible_collections.ferry.vmware.plugins.module_utils.disk.controllers import VMDK_ADAPTERS
from ansible_collections.ferry.vmware.plugins.module_utils.disk.vmdk.convert import FORMATS, convert
from ansible_collections.ferry.vmware.plugins.module_utils.errors import Interrupted
from ansible_collections.ferry.vmware.plugins.module_utils.long_task import long_task_spec, progress_from

SPEC: dict[str, Any] = {
    "src": {"type": "path", "required": True},
    "dest": {"type": "path", "required": True},
    "format": {"type": "str", "choices": list(FORMATS), "required": True},
    "adapter_type": {"type": "str", "choices": list(VMDK_ADAPTERS)},
    "hw_version": {"type": "int"},
    "compression_level": {"type": "int"},
    "threads": {"type": "int"},
    "thin": {"type": "bool", "default": True},
    "checksum": {"type": "str", "choices": ["sha256"]},
    "allow_extents": {"type": "list", "elements": "path", "default": []},
    "force": {"type": "bool", "default": False},
}


def work(call: edge.Call) -> dict[str, Any]:
    options = {name: call.params[name] for name in SPEC}
    label = os.path.basename(options["src"])
    with progress_from(call.params, name=label) as told:
        told.install_signals()

        def progress(phase: str, done: int, total: int) -> None:
            told.update(label, phase, done, total)
            told.check()

        try:
            result = convert(**options, progress=progress, check=call.check)
            for remark in result["problems"]:
                call.warn(f"{label}: {remark}")
            return result
        except Interrupted as e:
            e.left, e.next_command = None, "the same command again; an unfinished file does not stay"
            raise


def main() -> None:
    edge.run({**SPEC, **long_task_spec()}, work)


if __name__ == "__main__":
    main()
