# Copyright (c) 2026, ferry.vmware contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What of a guest hangs on its hardware: file systems by device, interfaces by name; and what they are bound to instead."""

from __future__ import annotations

import pytest

from ansible_collections.ferry.vmware.plugins.module_utils.errors import BadInput
from ansible_collections.ferry.vmware.plugins.module_utils.guest import fstab, identity, networks
from ansible_collections.ferry.vmware.plugins.module_utils.guest.model import Card, cards_of

ONE, TWO = "00:50:56:aa:bb:01", "00:50:56:aa:bb:02"
FSTAB = """# <file system> <mount point>
/dev/vg0/root / ext4 errors=remount-ro 0 1
/dev/sda1\t/boot ext4 defaults 0 2
/dev/sdb1 /data ext4 defaults,nofail 0 2
UUID=aa-bb /srv ext4 defaults 0 2
/dev/sdb10 /ten ext4 defaults 0 2
/dev/disk/by-path/pci-0000:03:00.0-scsi-0:0:1:0-part1 /old ext4 defaults 0 2
# /dev/sda1 /commented ext4 defaults 0 2
/dev/sr0 /cdrom iso9660 noauto 0 0
"""


def test_file_systems_named_by_their_device_get_their_uuid() -> None:
    text, changes, left = fstab.by_uuid(FSTAB, {"/dev/sda1": "11-22", "/dev/sdb1": "33-44"})
    assert "UUID=11-22\t/boot ext4" in text and "UUID=33-44 /data ext4" in text
    assert "/dev/sdb10 /ten" in text and "# /dev/sda1 /commented" in text and "/dev/vg0/root /" in text and "/dev/sr0" in text
    assert [(c.before, c.after) for c in changes] == [("/dev/sda1", "UUID=11-22"), ("/dev/sdb1", "UUID=33-44")]
    assert left == ["/dev/sdb10", "/dev/disk/by-path/pci-0000:03:00.0-scsi-0:0:1:0-part1"]
    assert fstab.by_uuid(text, {"/dev/sda1": "11-22", "/dev/sdb1": "33-44"})[:2] == (text, [])


def test_what_virt_v2v_made_of_them_is_the_same_file_system() -> None:
    text, changes, left = fstab.by_uuid("/dev/vdb1 /data ext4 defaults 0 2\n", {"/dev/sdb1": "33-44"})
    assert (text, left) == ("UUID=33-44 /data ext4 defaults 0 2\n", []) and changes[0].before == "/dev/vdb1"


def test_crypttab_names_its_device_in_the_second_column() -> None:
    text, changes, _left = fstab.by_uuid("secret /dev/sdc2 none luks\n", {"/dev/sdc2": "55"}, column=1, path=fstab.CRYPTTAB)
    assert (text, len(changes)) == ("secret /dev/sdc2 none luks\n", 0)  # 55 is too short for a UUID: nothing that a guest says is believed
    text, changes, _left = fstab.by_uuid("secret /dev/sdc2 none luks\n", {"/dev/sdc2": "5555-6666"}, column=1, path=fstab.CRYPTTAB)
    assert text == "secret UUID=5555-6666 none luks\n"


FILES = {
    "/etc/network/interfaces": "auto lo\niface lo inet loopback\nauto ens192\niface ens192 inet static\n address 10.7.0.5/24\n gateway 10.7.0.1\n"
    "iface ens192:1 inet static\n address 10.7.0.6/24\n",
    "/etc/netplan/50-cloud-init.yaml": "network:\n  version: 2\n  ethernets:\n    ens224:\n      addresses:\n        - 10.8.0.5/24\n"
    "      nameservers:\n        addresses: [10.8.0.2]\n      match:\n        driver: vmxnet3\n    ens256:\n      dhcp4: true\n"
    "  bonds:\n    bond0:\n      interfaces: [ens224]\n",
    "/etc/sysconfig/network-scripts/ifcfg-ens161": f'DEVICE="ens161"\nHWADDR={ONE.upper()}\nIPADDR=10.9.0.5\nPREFIX=24\n',
    "/etc/sysconfig/network-scripts/ifcfg-bond0": "DEVICE=bond0\nTYPE=Bond\n",
    "/etc/NetworkManager/system-connections/lan.nmconnection": "[connection]\nid=lan\ntype=ethernet\ninterface-name=ens33\n\n"
    "[ethernet]\n\n[ipv4]\naddress1=10.10.0.5/24,10.10.0.1\nmethod=manual\n",
    "/etc/systemd/network/20-lan.network": "[Match]\nName=ens34\nDriver=vmxnet3\n[Network]\nAddress=10.11.0.5/24\nAddress=fd00::5/64\n",
    "/etc/systemd/network/99-any.network": "[Match]\nName=en*\n[Network]\nDHCP=yes\n",
    "/etc/udev/rules.d/70-persistent-net.rules": f'SUBSYSTEM=="net", ATTR{{address}}=="{TWO}", NAME="eth0"\n',
}


def test_every_manager_of_networks_is_read() -> None:
    found = {i.name: i for i in networks.interfaces(FILES)}
    assert sorted(found, key=networks.order) == ["ens33", "ens34", "ens161", "ens192", "ens224", "ens256", "eth0"]
    assert found["ens192"].addresses == ("10.7.0.5/24",)
    assert (found["ens224"].addresses, found["ens224"].driver) == (("10.8.0.5/24",), "vmxnet3")
    assert (found["ens161"].mac, found["ens161"].addresses) == (ONE, ("10.9.0.5",))
    assert found["ens33"].addresses == ("10.10.0.5/24",)
    assert (found["ens34"].addresses, found["ens34"].driver) == (("10.11.0.5/24", "fd00::5/64"), "vmxnet3")
    assert found["eth0"].mac == TWO


@pytest.mark.parametrize(
    ("names", "cards", "bound", "said"),
    [
        pytest.param(["ens192"], [Card(ONE)], {ONE: "ens192"}, "", id="one-of-each"),
        pytest.param(["ens192", "ens224"], [Card(ONE, slot=224), Card(TWO, slot=192)], {ONE: "ens224", TWO: "ens192"}, "", id="by-slot"),
        pytest.param(
            ["ens192", "ens224"], [Card(ONE, addresses=("10.0.0.2",)), Card(TWO)], {ONE: "ens224", TWO: "ens192"}, "", id="by-address"
        ),
        pytest.param(["ens192", "ens224"], [Card(ONE, name="ens224"), Card(TWO)], {ONE: "ens224", TWO: "ens192"}, "", id="by-name"),
        pytest.param(["eth0", "eth1"], [Card(ONE), Card(TWO)], {ONE: "eth0", TWO: "eth1"}, "not certain", id="by-order"),
        pytest.param(["ens192", "ens224"], [Card(ONE, slot=192)], {ONE: "ens192"}, "no card", id="more-names"),
        pytest.param([], [Card(ONE)], {}, "", id="nothing-configured"),
        pytest.param([], [Card(ONE, name="lan0")], {ONE: "lan0"}, "", id="said-by-the-caller"),
    ],
)
def test_a_name_goes_to_the_card_that_had_it(names: list[str], cards: list[Card], bound: dict[str, str], said: str) -> None:
    files = [networks.Interface(n, "f", addresses=(f"10.0.0.{i + 1}/24",)) for i, n in enumerate(names)]
    found, remarks = identity.bind(files, cards)
    assert found == bound and said in " ".join(remarks) and bool(remarks) == bool(said)


def test_a_mac_in_a_file_wins_over_the_order_and_a_foreign_one_takes_no_card() -> None:
    files = [networks.Interface("eth0", "f", TWO), networks.Interface("eth1", "f"), networks.Interface("eth7", "f", "00:50:56:ff:ff:ff")]
    assert identity.bind(files, [Card(ONE), Card(TWO)]) == ({ONE: "eth1", TWO: "eth0"}, [])


def test_files_that_give_the_name_to_the_mac() -> None:
    made = identity.link_files({ONE: "ens192"})
    assert made == {"/etc/systemd/network/10-ferry-ens192.link": f"[Match]\nMACAddress={ONE}\n\n[Link]\nName=ens192\n"}
    assert identity.bound_already(networks.interfaces(made), made, {ONE: "ens192"}, systemd=True)
    assert not identity.bound_already([], {}, {ONE: "ens192"}, systemd=True)
    rules = identity.rules('# mine\nSUBSYSTEM=="net", ATTR{address}=="00:50:56:AA:BB:01", NAME="eth5"\n', {ONE: "eth0"})
    assert rules.startswith("# mine\n") and "eth5" not in rules and f'ATTR{{address}}=="{ONE}"' in rules
    assert identity.rules(rules, {ONE: "eth0"}) == rules
    assert identity.bound_already([], {identity.RULES: rules}, {ONE: "eth0"}, systemd=False)


def test_what_names_vmwares_driver_names_the_mac() -> None:
    netplan = identity.without_driver(FILES["/etc/netplan/50-cloud-init.yaml"], "vmxnet3", ONE)
    assert f'        macaddress: "{ONE}"\n' in netplan and "driver" not in netplan
    assert f"MACAddress={ONE}\n" in identity.without_driver(FILES["/etc/systemd/network/20-lan.network"], "vmxnet3", ONE)


def test_addresses_are_changed_as_whole_words() -> None:
    wanted = identity.checked({"10.7.0.5": "10.99.0.5", "10.7.0.1": "10.99.0.1", "10.10.0.5/24": "10.98.0.5/16"})
    text, changes = identity.renumbered("i", "address 10.7.0.5/24\ngateway 10.7.0.1\nother 110.7.0.5 10.7.0.50 10.7.0.1.2\n", wanted)
    assert text == "address 10.99.0.5/24\ngateway 10.99.0.1\nother 110.7.0.5 10.7.0.50 10.7.0.1.2\n"
    assert [(c.before, c.after) for c in changes] == [("10.7.0.5/24", "10.99.0.5/24"), ("10.7.0.1", "10.99.0.1")]
    assert identity.renumbered("i", "address1=10.10.0.5/24,10.10.0.1", wanted)[0] == "address1=10.98.0.5/16,10.10.0.1"
    assert identity.renumbered("i", "Address=fd00::5/64", {"fd00::5": "fd01::5"})[0] == "Address=fd01::5/64"
    with pytest.raises(BadInput, match="no address"):
        identity.checked({"10.7.0.5": "10.7.0.500"})


def test_cards_have_macs() -> None:
    assert cards_of([{"mac": "00-50-56-AA-BB-01", "slot": 192}]) == (Card(ONE, slot=192),)
    with pytest.raises(BadInput, match="no MAC"):
        cards_of([{"mac": "00:50:56:aa:bb"}])
