#!/bin/sh
# Copyright (c) 2026, ferry.vmware contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
#
# In the Debian guest, when it is up: says on the serial console what a test looks for, between two lines.
exec >/dev/ttyS0 2>&1
echo "FERRY-DEBIAN-BEGIN"
for at in / /boot /data; do findmnt -rno SOURCE,TARGET "$at" | sed 's/^/mount /'; done
sed 's/^/data /' /data/data.txt
for nic in /sys/class/net/*; do
    driver=$(readlink -f "$nic/device/driver" 2>/dev/null)
    echo "nic ${nic##*/} $(cat "$nic/address") ${driver##*/}"
done
ip -br -4 addr | sed 's/^/addr /'
ip route | sed 's/^/route /'
sha256sum /etc/ferry-canary | sed 's/^/canary /'
dpkg-query -W open-vm-tools 2>/dev/null | sed 's/^/package /'
echo "state $(systemctl is-system-running)"
systemctl --failed --no-legend --plain | sed 's/^/failed /'
echo "FERRY-DEBIAN-END"
