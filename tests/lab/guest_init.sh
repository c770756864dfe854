#!/bin/busybox sh
# Copyright (c) 2026, ferry.vmware contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
#
# The lab's guest, from its first process on: loads drivers, says what it sees between two lines on the serial console, and then
# tells of disks that are plugged in or out.
# shellcheck shell=dash
/bin/busybox --install -s /bin
export PATH=/bin
mount -t proc proc /proc
mount -t sysfs sysfs /sys
mount -t devtmpfs devtmpfs /dev
exec </dev/ttyS0 >/dev/ttyS0 2>&1
while read -r module; do insmod "/lib/modules/$module.ko" 2>/dev/null; done </lib/modules/order

# The driver of the PCI device that a block or network device hangs on.
driver() {
    at=$(readlink -f "/sys/class/$1/$2/device")
    while [ "$at" != /sys/devices ] && [ -n "$at" ] && [ "$at" != / ]; do
        if [ -e "$at/vendor" ] && [ -e "$at/class" ] && [ -e "$at/driver" ]; then
            basename "$(readlink -f "$at/driver")"
            return
        fi
        at=$(dirname "$at")
    done
    echo none
}
upper() {
    if [ -e "/sys/class/$1/$2/device/driver" ]; then basename "$(readlink -f "/sys/class/$1/$2/device/driver")"; else echo none; fi
}
serial() {
    if [ -s "/sys/block/$1/serial" ]; then
        cat "/sys/block/$1/serial"
    elif [ -e "/sys/block/$1/device/vpd_pg80" ]; then
        dd if="/sys/block/$1/device/vpd_pg80" bs=1 skip=4 2>/dev/null
    fi | tr -cd 'A-Za-z0-9_-'
}
disks() {
    for at in /sys/block/sd* /sys/block/vd* /sys/block/hd* /sys/block/nvme*; do
        if [ -e "$at" ]; then printf '%s ' "${at##*/}"; fi
    done
}
disk() {
    echo "disk $1 bytes $(($(cat "/sys/block/$1/size") * 512)) controller $(driver block "$1") driver $(upper block "$1") serial $(serial "$1")"
}

tries=0
until findfs LABEL=ferry-root >/dev/null 2>&1 || [ $tries -ge 60 ]; do
    tries=$((tries + 1))
    sleep 0.5
done
echo "FERRY-GUEST-BEGIN"
echo "kernel $(uname -r)"
if [ -d /sys/firmware/efi ]; then echo "firmware efi"; else echo "firmware bios"; fi
if [ -e /sys/firmware/efi ]; then
    mount -t efivarfs efivarfs /sys/firmware/efi/efivars 2>/dev/null
    for v in /sys/firmware/efi/efivars/SecureBoot-*; do [ ! -e "$v" ] || echo "secureboot $(dd if="$v" bs=1 skip=4 2>/dev/null | od -An -tu1 | tr -d ' ')"; done
fi
known=$(disks)
for name in $known; do disk "$name"; done
for path in /sys/class/net/eth*; do
    [ -e "$path" ] && echo "nic ${path##*/} mac $(cat "$path/address") controller $(driver net "${path##*/}") driver $(upper net "${path##*/}")"
done
for label in root data; do
    device=$(findfs "LABEL=ferry-$label" 2>/dev/null)
    if [ -n "$device" ] && mount -t ext4 "$device" "/mnt/$label"; then
        echo "mounted $label ${device#/dev/} $(cat "/mnt/$label/etc/ferry" "/mnt/$label/data.txt" 2>/dev/null)"
    else
        echo "missing $label"
    fi
done
# What the guest writes has to be there at its next start.
if [ -d /mnt/data ] && grep -q /mnt/data /proc/mounts; then
    boots=$(($(cat /mnt/data/boots 2>/dev/null || echo 0) + 1))
    echo $boots >/mnt/data/boots
    sync
    echo "boots $boots"
fi
echo "FERRY-GUEST-END"
while :; do
    sleep 1
    now=$(disks)
    for name in $now; do case " $known " in *" $name "*) ;; *) echo "plugged $(disk "$name")" ;; esac; done
    for name in $known; do case " $now " in *" $name "*) ;; *) echo "unplugged $name" ;; esac; done
    known=$now
done
