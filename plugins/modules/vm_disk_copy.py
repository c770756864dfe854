#!/usr/bin/python
# Copyright (c) 2026, ferry.vmware contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: vm_disk_copy
short_description: Copy the disks of a virtual machine to where they will live, resumably and proven
version_added: 1.0.0
author:
  - ferry.vmware contributors (@ferry-vmware)
description:
  - Reads the disks of a VM over the datastore's HTTPS, as NFC streams or by NBD (VDDK), or a local disk file or any NBD export,
    and writes each straight to its target, without staging. Zeroes are neither written nor, where holes are known, read.
    A target is a Cinder volume, an image in Glance, a file or a block device.
  - A VM that is powered off is read as it stands. A running one is read at a snapshot of all its disks, which is taken for the
    copy, tagged as ours, and removed at its end, also when it fails. One that a killed run left is removed by the next run.
  - Where changed block tracking is on (see M(ferry.vmware.vm_cbt)), the next copy of the same disk to the same target reads only
    what has changed since.
  - All disks are copied at once, by one pool of O(workers).
  - What was copied is recorded in a ledger on the machine that runs the module. When it is killed, the same task goes
    on inside the disk; when the source has changed since, only what differs is written.
  - The target of a finished copy that was altered by somebody else is compared and mended by the next run.
options:
  vm:
    description:
      - The VM, given by name, inventory path, instance UUID, BIOS UUID or MoRef.
      - One of O(vm) and O(source) is needed.
    type: str
  source:
    description:
      - A local disk instead of a VM's. One whose name ends in C(.vmdk) (but not in C(-flat.vmdk)) is read as a VMDK, all others
        as raw bytes.
      - Or the URI of an NBD export (C(nbd://host/export), C(nbds://host/export), C(nbd+unix:///export?socket=/run/x.sock)).
    type: str
  snapshot:
    description:
      - Name or MoRef of a snapshot to read, instead of one that is taken for the copy. It is not removed.
    type: str
  quiesce:
    description:
      - Whether the guest is asked to flush its file systems (on Windows, by VSS, its applications too) for the snapshot.
      - V(auto) asks, and takes a snapshot without where the guest cannot (said in RV(remarks)); V(required) fails then.
    type: str
    choices: [auto, required, never]
    default: auto
  disks:
    description: What goes where.
    type: list
    elements: dict
    required: true
    suboptions:
      disk:
        description:
          - The disk of the VM, by label (C(Hard disk 1)), key (V(2000)), UUID or place (C(scsi0:0)).
          - May be left out where the VM has one disk, and must be with O(source).
        type: str
      dest:
        description: The target.
        type: dict
        required: true
        suboptions:
          path:
            description: A file (made sparse, with mode 0600, if it does not exist) or a block device.
            type: path
          volume:
            description:
              - ID of a Cinder volume, at least as large as the disk. It is attached to this machine for the time of the copy,
                which keeps every other writer away.
            type: str
          image:
            description:
              - Name of an image in Glance, which gets the disk in one pass, compressed while it is read (O(disks[].format)). Its properties
                are those of M(ferry.vmware.glance_vmdk_upload), with what the VM says of its machine.
              - Glance changes no image's data. An image of this name that holds this very disk is left as it is, and one that holds
                another disk is an error. O(mode=incremental) is refused. An upload that was cut begins anew, under the same image ID.
              - Images are sent after the other disks, one after another.
            type: str
      format:
        description:
          - What is written to O(disks[].dest.path), by default V(raw). A VMDK that is to be streamed is made of it by
            M(ferry.vmware.vmdk_convert).
          - For O(disks[].dest.image) it is V(streamOptimized), the default, or V(raw), which sends the zeroes, too.
          - A V(streamOptimized) image for KVM has in front where everything lies. So a disk that compresses to more than an eighth of
            the free memory, or than 1 GiB, is read twice in part, and one that comes by O(transport=nfc) has to be sent V(raw).
        type: str
        choices: [raw, monolithicFlat, vmfs, monolithicSparse, streamOptimized]
      image:
        description:
          - How the image of O(disks[].dest.image) is to be. See the same options of M(ferry.vmware.glance_vmdk_upload).
        type: dict
        suboptions:
          hypervisor:
            description: What boots the image, which decides the family of properties.
            type: str
            choices: [kvm, vmware]
            default: kvm
          hardware:
            description: Whether the controller and the network card are the VM's, as far as the hypervisor has them, or V(virtio).
            type: str
            choices: [source, virtio]
            default: source
          properties:
            description: Further properties, which win over the module's own. An empty value leaves one out.
            type: dict
          visibility:
            description: Who sees the image.
            type: str
            choices: [private, shared, community, public]
          protected:
            description: Whether the image cannot be deleted.
            type: bool
          tags:
            description: Tags of the image, all of them.
            type: list
            elements: str
          members:
            description: IDs of the projects that the image is shared with, all of them.
            type: list
            elements: str
          stores:
            description: Stores that the image should be in, where Glance has several.
            type: list
            elements: str
          min_ram:
            description: MiB of memory that a server needs.
            type: int
          compression_level:
            description: From 1 (fast, the default) to 9 (small).
            type: int
      nbd:
        description: URI of an NBD export of this very disk at this very state, for O(transport=nbd).
        type: str
  mode:
    description:
      - V(auto) goes on where the ledger says, and does nothing where the target already holds this state of the source. It copies
        everything the first time, later only what has changed where that is tracked; else it reads everything and writes what differs.
      - V(full) copies everything anew.
      - V(incremental) refuses, with the reason, where more than the changed areas had to be read.
    type: str
    choices: [auto, full, incremental]
    default: auto
  transport:
    description:
      - How the source is read. For a VM's disk V(auto) is V(https) on VMFS and NFS; on other datastores, and for encrypted disks,
        V(nbd) where an export or O(vddk) is given, else V(nfc), which reads whole disks only. Where nbdkit, its plugin or libnbd is missing
        on the machine that copies, V(nfc) is taken instead of V(nbd), and RV(remarks) says so.
      - For O(source) it is V(file) or V(nbd).
    type: str
    choices: [auto, https, nfc, nbd, file]
    default: auto
  vddk:
    description:
      - How NBD exports of the VM's disks are made, by nbdkit's vddk plugin, from a VDDK of your own (see the role C(vddk)).
    type: dict
    suboptions:
      libdir:
        description: Folder into which VDDK was unpacked (C(vmware-vix-disklib-distrib)).
        type: path
        required: true
      thumbprint:
        description:
          - SHA-1 thumbprint of vCenter's certificate, which VDDK wants to verify it. By default that of the certificate which vCenter
            shows, and which is verified by O(ca_path) first.
        type: str
      transports:
        description: VDDK's list of transport modes, such as C(nbdssl:nbd).
        type: str
  nbd_tls_certificates:
    description: Folder with C(ca-cert.pem) (and C(client-cert.pem), C(client-key.pem)) for C(nbds) URIs.
    type: path
  outside_sample:
    description:
      - Per cent of what lies B(outside) the changed areas that is read and compared with the digests of what was copied, because
        changed block tracking itself can be wrong. It is taken in whole chunks, those in which something has changed among them,
        because what is missed lies most often beside what is told. A difference leads to a comparison of the whole disk in the same
        run.
      - By default V(1) for a VM that is powered off (the last copy before it lives elsewhere) and where allocated areas were taken
        as a hint, else V(0).
    type: float
  bad_builds:
    description: Builds of ESXi (number, or version and number) whose changed areas are not to be used, besides those that are known.
    type: list
    elements: str
  budget:
    description:
      - Limits of reading, shared by all copies on this machine, in whichever process they run. Kept for later runs, as by
        M(ferry.vmware.copy_budget), which has the same options.
    type: dict
  workers:
    description: Reads and writes at once, over all disks.
    type: int
    default: 4
  chunk_size:
    description: Bytes of one read; a multiple of 1 MiB, at most 64 MiB. Memory used is about O(workers) times this, twice.
    type: int
    default: 8388608
  verify:
    description:
      - Whether the target is read back and compared with the digests taken on the way. What differs is copied again and
        counted in RV(disks[].repaired).
      - V(sample) reads back one unit in twenty, and after an incremental copy all that it wrote to; where that finds a
        difference the whole disk is read back. V(full) reads back the whole disk.
      - Of an image, Glance's SHA-512 of what it was sent is compared in any case. V(full) also reads the image back.
    type: str
    choices: [none, sample, full]
    default: sample
  checksum:
    description:
      - With V(sha256) the target is also read once more from beginning to end for its plain SHA-256. This runs on one core
        and cannot skip zeroes; the RV(disks[].digest) that costs nothing is enough to compare two copies.
    type: str
    choices: [none, sha256]
    default: none
  ledger:
    description:
      - Folder for the ledgers on the machine that runs the module; it must outlive the run.
      - By default C($XDG_STATE_HOME/ferry) or C(~/.local/state/ferry).
    type: path
  patience:
    description: Seconds for which a server that fails or is away is asked again before the copy gives up.
    type: int
    default: 60
  root_helper:
    description: What makes a command root when a volume is attached; not used where the module runs as root.
    type: str
    default: sudo
  attach:
    description:
      - How a volume comes to this machine. V(nova) has Nova plug it in, where this machine is a server of the target cloud;
        V(brick) connects it by os-brick, which needs root and a way to the storage. V(auto) is V(nova) where the firmware says that this
        is a server of an OpenStack, and this cloud shows it, else V(brick).
      - Into a volume of an encrypted type only V(nova) can write, since Nova opens the encryption.
    type: str
    choices: [auto, nova, brick]
    default: auto
  instance:
    description: The id of this machine in Nova, where it cannot tell it by itself.
    type: str
  take_over:
    description:
      - Take a volume over from another conversion host that holds it. Only when that machine is dead for certain.
    type: bool
    default: false
attributes:
  check_mode:
    support: full
    details: Says per disk what would be copied, and how many bytes would be read at most.
  diff_mode:
    support: none
    details: What changes are bytes.
  idempotency:
    support: full
extends_documentation_fragment:
  - ferry.vmware.attributes
  - ferry.vmware.vsphere
  - ferry.vmware.openstack
  - ferry.vmware.long_task
notes:
  - O(validate_certs) is about vCenter. What holds for OpenStack is said in C(clouds.yaml) (C(verify), C(cacert)) or O(ca_cert).
seealso:
  - module: ferry.vmware.vmdk_convert
"""

EXAMPLES = r"""
- name: Both disks of a powered-off VM, straight into their volumes
  ferry.vmware.vm_disk_copy:
    vm: db01
    cloud: prod
    verify: full
    disks:
      - disk: Hard disk 1
        dest:
          volume: 6f1a6a3e-3a5c-4a8e-9a55-1f1a0a6f8c11
      - disk: scsi0:1
        dest:
          volume: 0b0b7c7e-0a0d-4b7c-8d5a-7d6f3f0f2a22

- name: A disk to a sparse file beside us
  ferry.vmware.vm_disk_copy:
    vm: /DC0/vm/web/web01
    disks:
      - disk: "2000"
        dest:
          path: /srv/images/web01.raw

- name: The root disk of a template as an image, a data disk beside it into its volume
  ferry.vmware.vm_disk_copy:
    vm: golden
    cloud: prod
    disks:
      - disk: Hard disk 1
        dest:
          image: golden
        image:
          visibility: shared
          tags: [golden]
      - disk: Hard disk 2
        dest:
          volume: 6f1a6a3e-3a5c-4a8e-9a55-1f1a0a6f8c11
"""

RETURN = r"""
disks:
  description: One entry for each disk, in the order asked for.
  type: list
  elements: dict
  returned: always
  contains:
    disk:
      description: Label of the disk, or name of the file.
      type: str
    key:
      description: Key of the disk.
      type: str
    capacity:
      description: Size of the disk in bytes.
      type: int
    dest:
      description: The target.
      type: dict
    mode:
      description:
        - V(full), V(incremental) (the changed areas), V(none) (nothing was to be done), V(compare) (everything was read, what
          differs was written) or V(repair) (the target had been altered).
      type: str
    reason:
      description: Why everything was read although changes are tracked.
      type: str
    transport:
      description: V(https), V(nfc), V(nbd) or V(file).
      type: str
    changed_bytes:
      description: Sum of the changed areas in bytes.
      type: int
    areas:
      description: Number of the changed areas.
      type: int
    outside_checked:
      description: Chunks of 1 MiB, with what lies outside the changed areas, that were compared with the source.
      type: int
    outside_share:
      description: Their share (0 to 1) of all chunks outside the changed areas.
      type: float
    outside_wrong:
      description: How many of them differed. Then the whole disk was compared.
      type: int
    adopted:
      description:
        - The ledger was lost, or is on another machine, and the digests were made anew from the target. V(proven) where they agree
          with what the volume says of itself, else V(assumed).
      type: str
      returned: where it was so
    tail_cleared:
      description: Bytes of the volume behind the disk (volumes come in whole GiB) that were not zero, and are now.
      type: int
      returned: where there were some
    bytes_read:
      description: Bytes read from the source.
      type: int
    bytes_written:
      description: Bytes written to the target.
      type: int
    bytes_skipped:
      description: Bytes that needed no writing, because they are zeroes or holes or stood there already.
      type: int
    bytes_resumed:
      description: Bytes that an earlier run had copied.
      type: int
    bytes_to_read:
      description: In check mode, bytes that would be read at most.
      type: int
      returned: in check mode
    change_id:
      description: Always null for a full copy of a powered-off VM.
      type: str
    digest:
      description: Digest of the disk over the digests of its chunks.
      type: str
      sample: xxh3-128:84362e28f26c0ddb1483deaa08e4b9f1
    sha256:
      description: SHA-256 of the disk's bytes on the target.
      type: str
      returned: with O(checksum=sha256), when the disk was copied
    verified:
      description: V(none), V(sample) or V(full); V(hash) of an image whose SHA-512 by Glance is that of what was sent.
      type: str
    image:
      description: The image, by C(id), C(name), C(status), C(size) in bytes, C(disk_format), C(min_disk) and C(visibility).
      type: dict
      returned: for O(disks[].dest.image); null in check mode, where there is none
    sha512:
      description: SHA-512 of what was sent to Glance.
      type: str
      returned: for O(disks[].dest.image)
    bytes_verified:
      description: Bytes that were read back and compared.
      type: int
    repaired:
      description: Chunks of 1 MiB that differed and were copied again.
      type: int
    seconds:
      description: How long it took.
      type: float
remarks:
  description: What the user should know, such as a snapshot that could not be quiesced, or one that a killed run had left.
  type: list
  elements: str
  returned: success
failure:
  description: What went wrong, as data.
  type: dict
  returned: failure
"""

from ansible.module_utils.basic import env_fallback

from ansible_collections.ferry.vmware.plugins.module_utils import edge
from ansible_collections.ferry.vmware.plugins.module_utils.long_task import long_task_spec
from ansible_collections.ferry.vmware.plugins.module_utils.openstack_cloud import argspec as openstack_argspec
from ansible_collections.ferry.vmware.plugins.module_utils.transfer import disk_copy
from ansible_collections.ferry.vmware.plugins.module_utils.transfer.wanted import FORMATS
from ansible_collections.ferry.vmware.plugins.module_utils.vsphere import argspec as vsphere_argspec


def main() -> None:
    spec = vsphere_argspec.connection_spec(
        env_fallback,
        vm={"type": "str"},
        source={"type": "str"},
        snapshot={"type": "str"},
        quiesce={"type": "str", "choices": ["auto", "required", "never"], "default": "auto"},
        disks={
            "type": "list",
            "elements": "dict",
            "required": True,
            "options": {
                "disk": {"type": "str"},
                "dest": {
                    "type": "dict",
                    "required": True,
                    "options": {"path": {"type": "path"}, "volume": {"type": "str"}, "image": {"type": "str"}},
                },
                "format": {"type": "str", "choices": list(FORMATS)},
                "image": {"type": "dict", "options": openstack_argspec.IMAGE},
                "nbd": {"type": "str"},
            },
        },
        mode={"type": "str", "choices": ["auto", "full", "incremental"], "default": "auto"},
        transport={"type": "str", "choices": ["auto", "https", "nfc", "nbd", "file"], "default": "auto"},
        vddk={
            "type": "dict",
            "options": {
                "libdir": {"type": "path", "required": True},
                "thumbprint": {"type": "str"},
                "transports": {"type": "str"},
            },
        },
        nbd_tls_certificates={"type": "path"},
        outside_sample={"type": "float"},
        bad_builds={"type": "list", "elements": "str"},
        budget={"type": "dict"},
        workers={"type": "int", "default": 4},
        chunk_size={"type": "int", "default": 8 << 20},
        verify={"type": "str", "choices": ["none", "sample", "full"], "default": "sample"},
        checksum={"type": "str", "choices": ["none", "sha256"], "default": "none"},
        ledger={"type": "path"},
        patience={"type": "int", "default": 60},
        root_helper={"type": "str", "default": "sudo"},
        attach={"type": "str", "choices": ["auto", "nova", "brick"], "default": "auto"},
        instance={"type": "str"},
        take_over={"type": "bool", "default": False},
        **long_task_spec(),
    )
    for name, option in openstack_argspec.connection_spec().items():
        spec.setdefault(name, option)
    edge.run(
        spec,
        lambda call: disk_copy.run(call.params, check=call.check),
        mutually_exclusive=[("vm", "source")],
        required_one_of=[("vm", "source")],
    )


if __name__ == "__main__":
    main()
