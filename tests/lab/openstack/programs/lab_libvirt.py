# Copyright (c) 2026, ferry.vmware contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What Nova's libvirt driver does otherwise in the lab, where libvirt has no rights and may be that of Debian 12.

- Network cards hang on QEMU's user network instead of a bridge: an ordinary user can make no tap device. What a card is (model,
  MAC, driver, queues) is left to Nova; where its packets go is not.
- Nova 34 describes UEFI in two ways at once, of which libvirt 9.0 refuses the one (the loader's "secure" where libvirt is to choose
  the firmware). The other says the same, and stays.
"""

from nova.virt.libvirt import config, vif


class UserInterface(config.LibvirtConfigGuestInterface):
    """<interface type='user'>, which Nova never makes itself."""

    def format_dom(self):
        self.net_type = "ethernet"  # the form that names no source
        try:
            element = super().format_dom()
        finally:
            self.net_type = "user"
        element.set("type", "user")
        return element


def _get_config(self, instance, interface, image_meta, flavor, virt_type):
    found = self.get_base_config(instance, interface["address"], image_meta, flavor, virt_type, interface["vnic_type"])
    found.__class__ = UserInterface
    found.net_type = "user"
    return found


def _nothing(_self, _instance, _interface):
    """There is no tap device that could be plugged."""


_format_os = config.LibvirtConfigGuest._format_os


def _format_os_once(self, root):
    _format_os(self, root)
    for loader in root.findall("./os[@firmware]/loader[@secure]"):
        del loader.attrib["secure"]
        if not loader.attrib and not loader.text:
            loader.getparent().remove(loader)


def install():
    """Change the libvirt driver of this process."""
    config.LibvirtConfigGuest._format_os = _format_os_once
    driver = vif.LibvirtGenericVIFDriver
    driver.get_config, driver.plug, driver.unplug = _get_config, _nothing, _nothing
