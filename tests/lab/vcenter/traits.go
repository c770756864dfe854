// Copyright (c) 2026, ferry.vmware contributors
// GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
// SPDX-License-Identifier: GPL-3.0-or-later

package main

import (
	"fmt"

	"github.com/vmware/govmomi/simulator"
	"github.com/vmware/govmomi/vim25/types"
)

// Traits are what few VMs have and what a check before a migration looks for. Nothing else in the lab follows from them.
type Traits struct {
	USB            []string    `json:"usb"` // controllers: 2 (EHCI+UHCI), 3 (xHCI)
	TPM            bool        `json:"tpm"`
	Encrypted      bool        `json:"encrypted"`
	CPUAffinity    []int32     `json:"cpu_affinity"`
	NUMA           string      `json:"numa"`    // numa.nodeAffinity
	HotAdd         []string    `json:"hot_add"` // cpu, cpu_remove, memory
	FaultTolerance string      `json:"fault_tolerance"`
	DiskUUID       bool        `json:"disk_uuid"`
	Connection     string      `json:"connection"`
	ToolsVersion   string      `json:"tools_version"`
	GuestDisks     []GuestDisk `json:"guest_disks"`
}

// GuestDisk is a file system that VMware Tools tell of; disk: key of the virtual disk, 0 where they do not know it.
type GuestDisk struct {
	Path     string `json:"path"`
	Capacity int64  `json:"capacity"`
	Free     int64  `json:"free"`
	Disk     int32  `json:"disk"`
}

// give puts a model's traits into a new VM. References: VirtualUSBController (key 7000), VirtualUSBXHCIController (14000), VirtualTPM
// (11000); VirtualMachineConfigInfo: keyId, cpuAffinity, cpuHotAddEnabled, cpuHotRemoveEnabled, memoryHotAddEnabled, flags.diskUuidEnabled,
// extraConfig ("numa.nodeAffinity": vSphere Resource Management, "Associate Virtual Machines with Specified NUMA Nodes");
// VirtualMachineRuntimeInfo: faultToleranceState, connectionState.
func (l *Lab) give(vm *simulator.VirtualMachine, t *Traits) {
	device := func(key int32, label string) types.VirtualDevice {
		return types.VirtualDevice{Key: key, ControllerKey: 100, DeviceInfo: &types.Description{Label: label, Summary: label}}
	}
	config := vm.Config
	for _, kind := range t.USB {
		if kind == "3" {
			x := &types.VirtualUSBXHCIController{AutoConnectDevices: types.NewBool(false)}
			x.VirtualDevice = device(14000, "USB xHCI controller")
			config.Hardware.Device = append(config.Hardware.Device, x)
			continue
		}
		x := &types.VirtualUSBController{AutoConnectDevices: types.NewBool(false), EhciEnabled: types.NewBool(true)}
		x.VirtualDevice = device(7000, "USB controller")
		config.Hardware.Device = append(config.Hardware.Device, x)
	}
	if t.TPM {
		config.Hardware.Device = append(config.Hardware.Device, &types.VirtualTPM{VirtualDevice: device(11000, "Virtual TPM")})
	}
	if t.Encrypted {
		config.KeyId = &types.CryptoKeyId{KeyId: fixedUUID("key:" + vm.Name), ProviderId: &types.KeyProviderId{Id: "lab-kms"}}
	}
	if len(t.CPUAffinity) > 0 {
		config.CpuAffinity = &types.VirtualMachineAffinityInfo{AffinitySet: t.CPUAffinity}
	}
	if t.NUMA != "" {
		config.ExtraConfig = append(config.ExtraConfig, &types.OptionValue{Key: "numa.nodeAffinity", Value: t.NUMA})
	}
	for _, what := range t.HotAdd {
		switch what {
		case "cpu":
			config.CpuHotAddEnabled = types.NewBool(true)
		case "cpu_remove":
			config.CpuHotRemoveEnabled = types.NewBool(true)
		case "memory":
			config.MemoryHotAddEnabled = types.NewBool(true)
		}
	}
	if t.DiskUUID {
		config.Flags.DiskUuidEnabled = types.NewBool(true)
	}
	for _, r := range []*types.VirtualMachineRuntimeInfo{&vm.Runtime, &vm.Summary.Runtime} {
		if t.FaultTolerance != "" {
			r.FaultToleranceState = types.VirtualMachineFaultToleranceState(t.FaultTolerance)
		}
		if t.Connection != "" {
			r.ConnectionState = types.VirtualMachineConnectionState(t.Connection)
		}
	}
}

// tell adds what VMware Tools tell beyond names and addresses. References: GuestInfo.disk (GuestDiskInfo with mappings, "if known"),
// GuestInfo.toolsVersionStatus2.
func (t *Traits) tell(guest *types.GuestInfo) {
	if t.ToolsVersion != "" {
		guest.ToolsVersionStatus, guest.ToolsVersionStatus2 = t.ToolsVersion, t.ToolsVersion
	}
	for _, d := range t.GuestDisks {
		info := types.GuestDiskInfo{DiskPath: d.Path, Capacity: d.Capacity, FreeSpace: d.Free}
		if d.Disk != 0 {
			info.Mappings = []types.GuestInfoVirtualDiskMapping{{Key: d.Disk}}
		}
		guest.Disk = append(guest.Disk, info)
	}
}

// spoil takes away from the disks of a new VM what a broken one lacks: its datastore, or its size.
func spoil(vm *simulator.VirtualMachine, v *VM) error {
	n := 0
	for _, d := range vm.Config.Hardware.Device {
		disk, ok := d.(*types.VirtualDisk)
		if !ok {
			continue
		}
		lacks := v.Disks[n].Lacks
		n++
		backing, ok := disk.Backing.(*types.VirtualDiskRawDiskMappingVer1BackingInfo)
		if lacks != "" && !ok {
			return fmt.Errorf("disk %d: only an rdm can lack its %s: the others have bytes", n, lacks)
		}
		switch lacks {
		case "datastore":
			backing.Datastore, backing.FileName = nil, ""
		case "capacity":
			disk.CapacityInBytes, disk.CapacityInKB = 0, 0
		}
	}
	return nil
}

// shareBuses sets how the controllers of a model's disks are shared. Reference: VirtualSCSIController.sharedBus.
func shareBuses(devices []types.BaseVirtualDevice, v *VM) {
	for _, d := range v.Disks {
		kind := controllerKinds[d.Controller]
		for _, x := range devices {
			if c, ok := x.(types.BaseVirtualSCSIController); ok && d.BusSharing != "" && x.GetVirtualDevice().Key == kind.key+d.Bus {
				c.GetVirtualSCSIController().SharedBus = types.VirtualSCSISharing(d.BusSharing + "Sharing")
			}
		}
	}
}

// setClock: reference: HostConfigInfo.dateTimeInfo, HostNtpConfig.server.
func setClock(h *simulator.HostSystem, servers []string) {
	config := *h.Config
	config.DateTimeInfo = &types.HostDateTimeInfo{TimeZone: types.HostDateTimeSystemTimeZone{Key: "UTC", Name: "UTC", Description: "UTC"},
		SystemClockProtocol: "ntp", NtpConfig: &types.HostNtpConfig{Server: servers}}
	h.Config = &config
}
