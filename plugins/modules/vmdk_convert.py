#!/usr/bin/python
# Copyright (c) 2026, ferry.vmware contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: vmdk_convert
short_description: Write a disk in another format, in parallel and whole or not at all
version_added: 1.0.0
author:
  - ferry.vmware contributors (@ferry-vmware)
description:
  - Converts a VMDK of any kind, a member of an OVA, a raw disk or a qcow2 image into one of the formats below, and names
    the controller on the way.
  - Holes and zeroes are not stored. Memory does not grow with the disk.
  - The result appears under its name when it is complete and durable, never in part.
  - A O(dest) that already is what was asked for, by its content, is left alone. One that was altered is written anew.
  - Where only O(adapter_type) or O(hw_version) differ, in a O(dest) that has the content already, or where O(src) and O(dest)
    are the same disk, the descriptor alone is written.
  - O(src) and O(dest) may be FIFOs. What is read from one and is not streamOptimized is kept beside O(dest) meanwhile.
requirements:
  - C(qemu-img), for qcow2 only
  - The Python libraries isal and deflate make compression several times as fast; they are used where they are there.
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
      - The disk to read. Of a disk of several files, its descriptor; of a snapshot, the descriptor of the delta.
      - C(x.ova/disk1.vmdk) is a member of an OVA, C(x.ova) its only disk; of chunks (C(.vmdk.000000000)), the first.
      - A file whose name ends in C(-flat.vmdk) or C(.raw) is a raw disk, whatever it holds; others are told by their content.
    type: path
    required: true
  dest:
    description:
      - The file to write. For the formats of several files this is the descriptor; the data goes beside it, to C(NAME-flat.vmdk)
        for O(format=monolithicFlat) and O(format=vmfs), to C(NAME-s001.vmdk) or C(NAME-f001.vmdk) and so on for split disks.
        The descriptor appears last; data files of the disk that stood there before, and are not needed any more, are removed.
      - A disk of another size, or a file that is no disk, is overwritten only with O(force=true).
      - Into a FIFO, only O(format=streamOptimized) and O(format=raw) can be written, and are so each time.
    type: path
    required: true
  format:
    description:
      - The format of O(dest).
      - V(streamOptimized) is compressed, as in an OVF; V(monolithicSparse) and V(monolithicFlat) are growing and flat disks;
        V(twoGbMaxExtentSparse) and V(twoGbMaxExtentFlat) are the same in files of less than 2 GiB; V(vmfs) is what an ESXi host has
        on its datastores, a descriptor and a flat file.
    type: str
    choices: [streamOptimized, monolithicSparse, monolithicFlat, twoGbMaxExtentSparse, twoGbMaxExtentFlat, vmfs, raw, qcow2]
    required: true
  adapter_type:
    description:
      - The disk controller that the VMDK names. Without it, that of O(src) if it has one, else C(lsilogic).
      - A O(dest) that has the content already keeps its own, where neither this option nor O(src) names one.
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
    description:
      - V(false) allocates all blocks of C(raw), C(monolithicFlat), C(twoGbMaxExtentFlat) and C(vmfs) files.
      - V(true) leaves holes, and says so in the descriptor of a C(vmfs) disk (C(ddb.thinProvisioned)).
    type: bool
    default: true
  checksum:
    description: Also compute this over the whole disk. It is slower than everything else; RV(digest) comes at no cost.
    type: str
    choices: [sha256]
  allow_extents:
    description:
      - Files or folders outside the folder of O(src) that its descriptor may name.
      - A backing file or an external data file of a qcow2 image must be listed in any case.
    type: list
    elements: path
    default: []
  salvage:
    description:
      - Save what can be saved of a damaged VMDK. What is gone reads as zeroes, and is listed in RV(lost).
      - The result of a disk that is sound is the same as without it.
      - A file whose content is not told from a raw disk is then taken for a VMDK whose first sector is damaged, unless its name
        says raw.
    type: bool
    default: false
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

- name: Give a disk another controller; its data is not touched
  ferry.vmware.vmdk_convert:
    src: /images/ubuntu.vmdk
    dest: /images/ubuntu.vmdk
    format: streamOptimized
    adapter_type: lsilogic

- name: Save what is left of a stream that was cut
  ferry.vmware.vmdk_convert:
    src: /exports/cut.vmdk
    dest: /images/saved.vmdk
    format: monolithicSparse
    salvage: true
  register: saved

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
  description: Bytes of data read from O(src), without holes; 0 where nothing was to be done, or the descriptor alone was written.
  returned: success
  type: int
  sample: 1610612736
bytes_out:
  description:
    - Bytes stored at O(dest), without holes; in check mode a prediction.
    - Where the descriptor alone was written, its size.
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
lost:
  description: What could not be saved. It is empty where nothing was lost.
  returned: with O(salvage=true)
  type: list
  elements: dict
  contains:
    start:
      description: Where the range begins, in bytes of the disk.
      type: int
    length:
      description: Its length in bytes.
      type: int
    reason:
      description: What was wrong there.
      type: str
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
from ansible_collections.ferry.vmware.plugins.module_utils.disk.vmdk.convert import convert
from ansible_collections.ferry.vmware.plugins.module_utils.disk.vmdk.fifo import STANDARD
from ansible_collections.ferry.vmware.plugins.module_utils.disk.vmdk.outputs import FORMATS
from ansible_collections.ferry.vmware.plugins.module_utils.errors import BadInput, Interrupted
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
    "salvage": {"type": "bool", "default": False},
    "force": {"type": "bool", "default": False},
}


def work(call: edge.Call) -> dict[str, Any]:
    options = {name: call.params[name] for name in SPEC}
    label = os.path.basename(options["src"])
    if STANDARD in (options["src"], options["dest"]):
        raise BadInput("A module has no standard streams to carry a disk; name a FIFO.")
    with progress_from(call.params, name=label) as told:
        told.install_signals()

        def progress(phase: str, done: int, total: int) -> None:
            told.update(label, phase, done, total)
            told.check()

        try:
            result = convert(**options, progress=progress, check=call.check)
            for remark in result["problems"]:
                call.warn(f"{label}: {remark}")
            if result.get("lost"):
                gone = sum(piece["length"] for piece in result["lost"])
                call.warn(f"{label}: {gone} bytes of the disk are lost or not proven; see lost")
            return result
        except Interrupted as e:
            e.left, e.next_command = None, "the same command again; an unfinished file does not stay"
            raise


def main() -> None:
    edge.run({**SPEC, **long_task_spec()}, work)


if __name__ == "__main__":
    main()
