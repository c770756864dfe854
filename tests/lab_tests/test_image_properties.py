# Copyright (c) 2026, ferry.vmware contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Every image property and each of its values, beside what the installed Nova knows and makes of it."""

from __future__ import annotations

import itertools
import json
import os
import subprocess
from pathlib import Path
from typing import Any

import pytest

from ansible_collections.ferry.vmware.plugins.module_utils.openstack_cloud import forms, hardware, properties

#: Nova's own words, and what it makes of properties: {"hw_disk_bus": ...} or the error for each set on stdin.
ASK_NOVA = """
import json, sys
from nova.objects import fields, image_meta
from nova.virt.libvirt import blockinfo, vif
from nova.virt.vmwareapi import constants, vm_util
from nova.network import model
names = {"hw_disk_bus": fields.DiskBus, "hw_scsi_model": fields.SCSIModel, "hw_vif_model": fields.VIFModel,
         "hw_firmware_type": fields.FirmwareType, "os_type": fields.OSType, "os_secure_boot": fields.SecureBoot}
known = {key: sorted(kind.ALL) for key, kind in names.items()}
known["vmware_adaptertype"] = sorted([*constants.SCSI_ADAPTER_TYPES, constants.ADAPTER_TYPE_IDE])
said = {"known": known, "kvm_buses": blockinfo.SUPPORTED_DEVICE_BUSES["kvm"], "kvm_cards": vif.SUPPORTED_VIF_MODELS["kvm"], "vmware_cards": []}
for card in model.VIF_MODEL_ALL:
    try:
        vm_util.convert_vif_model(card)
        said["vmware_cards"].append(card)
    except Exception:
        pass
said["read"] = []
for one in json.load(sys.stdin):
    try:
        made = image_meta.ImageMetaProps.from_dict(one)
        said["read"].append({key: made.get(key) for key in made.fields if made.obj_attr_is_set(key)})
    except Exception as e:
        said["read"].append({"error": str(e)})
print(json.dumps(said))
"""
FIELDS = {"disk_bus": "hw_disk_bus", "scsi_model": "hw_scsi_model", "nic_model": "hw_vif_model", "firmware": "hw_firmware_type"}


def ask(sets: list[dict[str, Any]]) -> dict[str, Any]:
    python = Path(os.environ["FERRY_LAB_SHIM"]).parents[3] / "build" / "venv-openstack" / "bin" / "python"
    done = subprocess.run([python, "-W", "ignore", "-c", ASK_NOVA], input=json.dumps(sets), check=True, capture_output=True, text=True)
    said: dict[str, Any] = json.loads(done.stdout)
    return said


def meant() -> list[dict[str, str]]:
    """The properties of every controller, card and firmware, on either hypervisor."""
    sets: list[dict[str, str]] = []
    machines = itertools.product(
        ("ide", "buslogic", "lsilogic", "lsisas1068", "pvscsi", "sata", "nvme", None),
        ("e1000", "e1000e", "vmxnet", "vmxnet2", "vmxnet3", "pcnet32", None),
        ("bios", "efi", None),
        ("kvm", "vmware"),
        ("source", "virtio"),
        ("rhel9_64Guest", "windows2019srv_64Guest", "freebsd13_64Guest", None),
    )
    for adapter, nic, firmware, hypervisor, kind, guest in machines:
        form = forms.Form("x", "vmdk", 1, "vmdk", "streamOptimized", adapter, None)
        machine = {"guest_id": guest, "firmware": firmware, "secure_boot": firmware == "efi", "nic_type": nic, "hardware": kind}
        found = forms.properties_for(form, hypervisor=hypervisor, machine=machine)
        if found not in sets:
            sets.append(found)
    return sets


BAD = [{key: "no such thing"} for key in properties.KNOWN]


@pytest.fixture(scope="module")
def said() -> dict[str, Any]:
    """Nova's answer, of all at once: it takes seconds to be imported."""
    return ask(meant() + BAD)


def test_the_tables_are_nova_s(said: dict[str, Any]) -> None:
    assert {key: sorted(values) for key, values in properties.KNOWN.items()} == said["known"]
    for card in properties.KNOWN["hw_vif_model"]:
        assert bool(properties.faults({"hw_vif_model": card}, "kvm")) == (card not in said["kvm_cards"]) or card == "spapr-vlan", card
        assert bool(properties.faults({"hw_vif_model": card}, "vmware")) == (card not in said["vmware_cards"]), card
    for bus in properties.KNOWN["hw_disk_bus"]:
        assert bool(properties.faults({"hw_disk_bus": bus}, "kvm")) == (bus not in said["kvm_buses"]), bus


def test_nova_takes_each_value_and_reads_what_is_meant(said: dict[str, Any]) -> None:
    for found, read in zip(meant(), said["read"][: -len(BAD)], strict=True):
        assert "error" not in read, (found, read)
        assert not ({"vmware_adaptertype"} & set(found) and {"hw_disk_bus", "hw_scsi_model"} & set(found))
        wanted = {name: value for name, value in hardware.of_properties(found).items() if name in FIELDS}
        assert {name: read[key] for name, key in FIELDS.items() if key in read} == wanted, found
        assert read.get("os_distro") == found.get("vmware_ostype", found.get("os_distro"))


def test_what_nova_refuses_is_refused_before(said: dict[str, Any]) -> None:
    for bad, read in zip(BAD, said["read"][-len(BAD) :], strict=True):
        assert read.get("error"), bad
        assert properties.faults(bad, "kvm"), bad
