// Copyright (c) 2026, ferry.vmware contributors
// GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
// SPDX-License-Identifier: GPL-3.0-or-later

package main

import (
	"crypto/sha1"
	"fmt"
	"path"
	"reflect"
	"slices"
	"strings"

	"github.com/vmware/govmomi/simulator"
	"github.com/vmware/govmomi/vim25/mo"
	"github.com/vmware/govmomi/vim25/types"
)

// controllerKind is one class of controller. Keys as the product numbers them: SCSI controllers from 1000 and their disks
// from 2000 in steps of 16 per bus; IDE 200 and 3000, two per bus; AHCI 15000 and 16000, 30 per bus; NVMe 31000 and 32000,
// 15 per bus (vSphere Virtual Machine Administration, "SCSI, SATA, and NVMe Storage Controller Conditions, Limitations,
// and Compatibility", has the number of devices per bus).
type controllerKind struct {
	key, diskKey, perBus, pciUnit int32
	adapter                       string // ddb.adapterType
	label, summary                string
	make                          func(types.VirtualController) types.BaseVirtualDevice
}

func scsi(c types.VirtualController) types.VirtualSCSIController {
	return types.VirtualSCSIController{VirtualController: c, SharedBus: types.VirtualSCSISharingNoSharing, ScsiCtlrUnitNumber: 7, HotAddRemove: types.NewBool(true)}
}

var controllerKinds = map[string]controllerKind{
	"pvscsi": {1000, 2000, 16, 3, "lsilogic", "SCSI controller %d", "VMware paravirtual SCSI", func(c types.VirtualController) types.BaseVirtualDevice {
		return &types.ParaVirtualSCSIController{VirtualSCSIController: scsi(c)}
	}},
	"lsilogic": {1000, 2000, 16, 3, "lsilogic", "SCSI controller %d", "LSI Logic", func(c types.VirtualController) types.BaseVirtualDevice {
		return &types.VirtualLsiLogicController{VirtualSCSIController: scsi(c)}
	}},
	"lsilogic-sas": {1000, 2000, 16, 3, "lsilogic", "SCSI controller %d", "LSI Logic SAS", func(c types.VirtualController) types.BaseVirtualDevice {
		return &types.VirtualLsiLogicSASController{VirtualSCSIController: scsi(c)}
	}},
	"buslogic": {1000, 2000, 16, 3, "buslogic", "SCSI controller %d", "BusLogic", func(c types.VirtualController) types.BaseVirtualDevice {
		return &types.VirtualBusLogicController{VirtualSCSIController: scsi(c)}
	}},
	"ide": {200, 3000, 2, 0, "ide", "IDE %d", "IDE %d", func(c types.VirtualController) types.BaseVirtualDevice {
		return &types.VirtualIDEController{VirtualController: c}
	}},
	"sata": {15000, 16000, 30, 24, "lsilogic", "SATA controller %d", "AHCI", func(c types.VirtualController) types.BaseVirtualDevice {
		return &types.VirtualAHCIController{VirtualSATAController: types.VirtualSATAController{VirtualController: c}}
	}},
	"nvme": {31000, 32000, 15, 30, "lsilogic", "NVME controller %d", "NVME Controller", func(c types.VirtualController) types.BaseVirtualDevice {
		return &types.VirtualNVMEController{VirtualController: c}
	}},
}

var nicKinds = map[string]func(types.VirtualEthernetCard) types.BaseVirtualDevice{
	"vmxnet3": func(c types.VirtualEthernetCard) types.BaseVirtualDevice {
		return &types.VirtualVmxnet3{VirtualVmxnet: types.VirtualVmxnet{VirtualEthernetCard: c}}
	},
	"vmxnet2": func(c types.VirtualEthernetCard) types.BaseVirtualDevice {
		return &types.VirtualVmxnet2{VirtualVmxnet: types.VirtualVmxnet{VirtualEthernetCard: c}}
	},
	"e1000": func(c types.VirtualEthernetCard) types.BaseVirtualDevice {
		return &types.VirtualE1000{VirtualEthernetCard: c}
	},
	"e1000e": func(c types.VirtualEthernetCard) types.BaseVirtualDevice {
		return &types.VirtualE1000e{VirtualEthernetCard: c}
	},
	// reference: VirtualSriovEthernetCard.sriovBacking (a physical function of the host's)
	"sriov": func(c types.VirtualEthernetCard) types.BaseVirtualDevice {
		return &types.VirtualSriovEthernetCard{VirtualEthernetCard: c, AllowGuestOSMtuChange: types.NewBool(false)}
	},
	"pcnet32": func(c types.VirtualEthernetCard) types.BaseVirtualDevice {
		return &types.VirtualPCNet32{VirtualEthernetCard: c}
	},
}

// fixedUUID is a UUID that depends on the name alone (RFC 9562, version 5), so that two starts give the same inventory.
func fixedUUID(name string) string {
	h := sha1.Sum([]byte("ferry.vmware lab " + name))
	h[6] = h[6]&0x0f | 0x50
	h[8] = h[8]&0x3f | 0x80
	return fmt.Sprintf("%x-%x-%x-%x-%x", h[0:4], h[4:6], h[6:8], h[8:10], h[10:16])
}

func flatDisks(devices []types.BaseVirtualDevice) (disks []*types.VirtualDisk) {
	for _, d := range devices {
		if disk, ok := d.(*types.VirtualDisk); ok {
			if _, ok := disk.Backing.(*types.VirtualDiskFlatVer2BackingInfo); ok {
				disks = append(disks, disk)
			}
		}
	}
	return disks
}

// ownDevice copies a default device: the simulator gives the same objects to every VM.
func ownDevice(d types.BaseVirtualDevice) types.BaseVirtualDevice {
	old := reflect.ValueOf(d).Elem()
	copied := reflect.New(old.Type())
	copied.Elem().Set(old)
	own := copied.Interface().(types.BaseVirtualDevice)
	if c, ok := own.(types.BaseVirtualController); ok {
		c.GetVirtualController().Device = slices.Clone(c.GetVirtualController().Device)
	}
	return own
}

// addDevices appends the controllers, disks and network adapters of the model to the simulator's default devices.
// References: vSphere Web Services API, VirtualDisk, VirtualDiskFlatVer2BackingInfo, VirtualSCSIController,
// VirtualEthernetCard; labels as the vSphere Client shows them in locale en_US.
func (l *Lab) addDevices(vm *simulator.VirtualMachine, v *VM) error {
	devices := make([]types.BaseVirtualDevice, 0, len(vm.Config.Hardware.Device)+len(v.Disks)+len(v.NICs)+4)
	for _, d := range vm.Config.Hardware.Device {
		devices = append(devices, ownDevice(d))
	}
	controllers := map[string]int32{} // "kind family:bus" to key
	attach := func(key, child int32) {
		for _, d := range devices {
			if c, ok := d.(types.BaseVirtualController); ok && d.GetVirtualDevice().Key == key {
				c.GetVirtualController().Device = append(c.GetVirtualController().Device, child)
			}
		}
	}
	for i, d := range v.Disks {
		kind, ok := controllerKinds[d.Controller]
		if !ok {
			return fmt.Errorf("disk %d: no controller %q", i+1, d.Controller)
		}
		ckey := kind.key + d.Bus
		id := fmt.Sprintf("%d:%d", kind.key, d.Bus)
		if _, ok := controllers[id]; !ok {
			controllers[id] = ckey
			if d.Controller != "ide" { // both IDE controllers are there in every VM
				unit := kind.pciUnit + d.Bus
				summary := kind.summary
				devices = append(devices, kind.make(types.VirtualController{BusNumber: d.Bus, VirtualDevice: types.VirtualDevice{
					Key: ckey, ControllerKey: 100, UnitNumber: &unit,
					DeviceInfo: &types.Description{Label: fmt.Sprintf(kind.label, d.Bus), Summary: summary},
				}}))
				attach(100, ckey)
			}
		}
		disk, err := l.disk(v, i, kind, ckey)
		if err != nil {
			return err
		}
		devices = append(devices, disk)
		attach(ckey, disk.Key)
		ds := *disk.Backing.(types.BaseVirtualDeviceFileBackingInfo).GetVirtualDeviceFileBackingInfo().Datastore
		if simulator.FindReference(vm.Datastore, ds) == nil {
			vm.Datastore = append(vm.Datastore, ds)
			store := l.service.Context.Map.Get(ds).(*simulator.Datastore)
			store.Vm = append(store.Vm, vm.Self)
		}
	}
	shareBuses(devices, v)
	for i, n := range v.NICs {
		if n.number > 0 {
			i = int(n.number)
		}
		nic, err := l.nic(vm, i, n)
		if err != nil {
			return err
		}
		devices = append(devices, nic)
		attach(100, nic.GetVirtualDevice().Key)
	}
	for i, id := range v.Passthrough {
		devices = append(devices, passthrough(i, id))
	}
	if v.ISO != "" {
		devices = append(devices, l.cdrom(v))
		attach(201, 3002)
	}
	if v.MemoryReserved > 0 {
		vm.Config.MemoryAllocation = &types.ResourceAllocationInfo{Reservation: types.NewInt64(v.MemoryReserved), Limit: types.NewInt64(-1),
			ExpandableReservation: types.NewBool(false), Shares: &types.SharesInfo{Shares: int32(10 * v.MemoryMB), Level: types.SharesLevelNormal}}
		vm.Summary.Config.MemoryReservation = int32(v.MemoryReserved)
	}
	vm.Config.Hardware.Device = devices
	vm.Summary.Config.NumVirtualDisks = int32(len(v.Disks))
	vm.Summary.Config.NumEthernetCards = int32(len(v.NICs))
	return nil
}

// diskFile is the datastore path of the model's disk number i: vSphere names the first like the VM, the next with _1, _2.
func diskFile(v *VM, i int) string {
	if v.Disks[i].File != "" {
		return v.Disks[i].File
	}
	name := fileName(v.Name)
	file := name + ".vmdk"
	if i > 0 {
		file = fmt.Sprintf("%s_%d.vmdk", name, i)
	}
	ds := v.Disks[i].Datastore
	if ds == "" {
		ds = v.Datastore
	}
	return fmt.Sprintf("[%s] %s", ds, path.Join(name, file))
}

func (l *Lab) disk(v *VM, i int, kind controllerKind, controller int32) (*types.VirtualDisk, error) {
	d := &v.Disks[i]
	name := d.Datastore
	if name == "" {
		name = v.Datastore
	}
	ds, ok := l.datastores[name]
	if !ok {
		return nil, fmt.Errorf("disk %d: no datastore %q", i+1, name)
	}
	if d.UUID == "" {
		d.UUID = fixedUUID(fmt.Sprintf("disk:%s:%d", v.UUID, i))
	}
	unit := d.Unit
	disk := &types.VirtualDisk{
		VirtualDevice: types.VirtualDevice{
			Key: kind.diskKey + d.Bus*kind.perBus + unit, ControllerKey: controller, UnitNumber: &unit,
			DeviceInfo: &types.Description{Label: fmt.Sprintf("Hard disk %d", i+1), Summary: thousands(d.Capacity/1024) + " KB"},
			Backing: &types.VirtualDiskFlatVer2BackingInfo{
				VirtualDeviceFileBackingInfo: types.VirtualDeviceFileBackingInfo{FileName: diskFile(v, i), Datastore: &ds.Ref, BackingObjectId: ""},
				DiskMode:                     d.Mode, Split: types.NewBool(false), WriteThrough: types.NewBool(false),
				ThinProvisioned: types.NewBool(d.Provisioning == "thin"), EagerlyScrub: types.NewBool(d.Provisioning == "eagerZeroedThick"),
				Uuid: vmdkUUID(d.UUID), ContentId: contentID(d.UUID), DigestEnabled: types.NewBool(false),
				Sharing: string(types.VirtualDiskSharingSharingNone),
			},
		},
		CapacityInKB: d.Capacity / 1024, CapacityInBytes: d.Capacity,
		Shares:                     &types.SharesInfo{Shares: 1000, Level: types.SharesLevelNormal},
		StorageIOAllocation:        &types.StorageIOAllocationInfo{Limit: types.NewInt64(-1), Shares: &types.SharesInfo{Shares: 1000, Level: types.SharesLevelNormal}, Reservation: types.NewInt32(0)},
		DiskObjectId:               fmt.Sprintf("1-%d", kind.diskKey+d.Bus*kind.perBus+unit),
		NativeUnmanagedLinkedClone: types.NewBool(false),
	}
	if d.Sharing == "multi_writer" {
		disk.Backing.(*types.VirtualDiskFlatVer2BackingInfo).Sharing = string(types.VirtualDiskSharingSharingMultiWriter)
	}
	if d.RDM != "" {
		disk.Backing = rawMapping(d, disk.Backing.(*types.VirtualDiskFlatVer2BackingInfo))
	}
	return disk, nil
}

// rawMapping: reference: VirtualDiskRawDiskMappingVer1BackingInfo (compatibilityMode: physicalMode or virtualMode, lunUuid, deviceName).
func rawMapping(d *Disk, like *types.VirtualDiskFlatVer2BackingInfo) *types.VirtualDiskRawDiskMappingVer1BackingInfo {
	b := &types.VirtualDiskRawDiskMappingVer1BackingInfo{
		VirtualDeviceFileBackingInfo: like.VirtualDeviceFileBackingInfo, LunUuid: "0200000000" + strings.ReplaceAll(d.UUID, "-", ""),
		DeviceName: "vml.0200000000" + strings.ReplaceAll(d.UUID, "-", ""), CompatibilityMode: d.RDM + "Mode", DiskMode: d.Mode, Uuid: like.Uuid,
		Sharing: string(types.VirtualDiskSharingSharingNone),
	}
	if d.RDM == "physical" {
		b.DiskMode = "independent_persistent"
	}
	return b
}

func (l *Lab) nic(vm *simulator.VirtualMachine, i int, n NIC) (types.BaseVirtualDevice, error) {
	make, ok := nicKinds[n.Type]
	if !ok {
		return nil, fmt.Errorf("network adapter %d: no type %q", i+1, n.Type)
	}
	reg := l.service.Context.Map
	found := reg.FindByName(n.Network, l.dc.Network)
	if found == nil {
		return nil, fmt.Errorf("network adapter %d: no network %q", i+1, n.Network)
	}
	var backing types.BaseVirtualDeviceBackingInfo
	var summary string
	switch net := found.(type) {
	case *mo.Network:
		ref := net.Self
		backing = &types.VirtualEthernetCardNetworkBackingInfo{
			VirtualDeviceDeviceBackingInfo: types.VirtualDeviceDeviceBackingInfo{DeviceName: n.Network, UseAutoDetect: types.NewBool(false)}, Network: &ref,
		}
		summary = n.Network
		reg.AddReference(l.context(), net, &net.Vm, vm.Self)
	case *simulator.DistributedVirtualPortgroup:
		dvs := reg.Get(*net.Config.DistributedVirtualSwitch).(*simulator.DistributedVirtualSwitch)
		backing = &types.VirtualEthernetCardDistributedVirtualPortBackingInfo{
			Port: types.DistributedVirtualSwitchPortConnection{PortgroupKey: net.Key, SwitchUuid: dvs.Uuid, PortKey: fmt.Sprint(i)},
		}
		summary = "DVSwitch: " + dvs.Uuid
		reg.AddReference(l.context(), net, &net.Vm, vm.Self)
	default:
		return nil, fmt.Errorf("network adapter %d: %q is a %T", i+1, n.Network, found)
	}
	vm.Network = append(vm.Network, found.Reference())
	unit := int32(7 + i)
	return make(types.VirtualEthernetCard{
		VirtualDevice: types.VirtualDevice{
			Key: int32(4000 + i), ControllerKey: 100, UnitNumber: &unit, Backing: backing,
			DeviceInfo:  &types.Description{Label: fmt.Sprintf("Network adapter %d", i+1), Summary: summary},
			Connectable: &types.VirtualDeviceConnectInfo{StartConnected: true, AllowGuestControl: true, Status: string(types.VirtualDeviceConnectInfoStatusOk)},
		},
		// VirtualEthernetCardMacType: a model gives every address, as a person does with "manual".
		AddressType: string(types.VirtualEthernetCardMacTypeManual), MacAddress: n.MAC, WakeOnLanEnabled: types.NewBool(true),
		ResourceAllocation: &types.VirtualEthernetCardResourceAllocation{Reservation: types.NewInt64(0), Limit: types.NewInt64(-1),
			Share: types.SharesInfo{Shares: 50, Level: types.SharesLevelNormal}},
	}), nil
}

// passthrough: reference: VirtualPCIPassthrough, VirtualPCIPassthroughDeviceBackingInfo (id "of the form 03:00.0").
func passthrough(i int, id string) types.BaseVirtualDevice {
	return &types.VirtualPCIPassthrough{VirtualDevice: types.VirtualDevice{
		Key: int32(13000 + i), DeviceInfo: &types.Description{Label: fmt.Sprintf("PCI device %d", i), Summary: id},
		Backing: &types.VirtualPCIPassthroughDeviceBackingInfo{VirtualDeviceDeviceBackingInfo: types.VirtualDeviceDeviceBackingInfo{DeviceName: id},
			Id: id, DeviceId: "1eb8", SystemId: "00000000-0000-0000-0000-000000000000", VendorId: 4318},
	}}
}

// cdrom is a drive at IDE 1:0 with an image of a datastore. Reference: VirtualCdromIsoBackingInfo.
func (l *Lab) cdrom(v *VM) types.BaseVirtualDevice {
	b := &types.VirtualCdromIsoBackingInfo{VirtualDeviceFileBackingInfo: types.VirtualDeviceFileBackingInfo{FileName: v.ISO}}
	if s := l.datastoreOf(v.ISO); s != nil {
		b.Datastore = &s.Ref
	}
	unit := int32(0)
	return &types.VirtualCdrom{VirtualDevice: types.VirtualDevice{
		Key: 3002, ControllerKey: 201, UnitNumber: &unit, Backing: b, DeviceInfo: &types.Description{Label: "CD/DVD drive 1", Summary: "ISO " + v.ISO},
		Connectable: &types.VirtualDeviceConnectInfo{StartConnected: true, AllowGuestControl: true, Status: string(types.VirtualDeviceConnectInfoStatusOk)},
	}}
}

func thousands(n int64) string {
	s := fmt.Sprint(n)
	for i := len(s) - 3; i > 0; i -= 3 {
		s = s[:i] + "," + s[i:]
	}
	return s
}
