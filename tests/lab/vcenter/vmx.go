// Copyright (c) 2026, ferry.vmware contributors
// GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
// SPDX-License-Identifier: GPL-3.0-or-later

package main

import (
	"bufio"
	"fmt"
	"os"
	"path"
	"regexp"
	"slices"
	"sort"
	"strconv"
	"strings"

	"github.com/vmware/govmomi/simulator"
	"github.com/vmware/govmomi/vim25/mo"
	"github.com/vmware/govmomi/vim25/types"
)

// controllerName is the model's name of a controller.
func controllerName(d types.BaseVirtualDevice) string {
	switch d.(type) {
	case *types.ParaVirtualSCSIController:
		return "pvscsi"
	case *types.VirtualLsiLogicController:
		return "lsilogic"
	case *types.VirtualLsiLogicSASController:
		return "lsilogic-sas"
	case *types.VirtualBusLogicController:
		return "buslogic"
	case *types.VirtualIDEController:
		return "ide"
	case *types.VirtualAHCIController:
		return "sata"
	case *types.VirtualNVMEController:
		return "nvme"
	}
	return ""
}

func nicType(d types.BaseVirtualDevice) string {
	switch d.(type) {
	case *types.VirtualVmxnet2:
		return "vmxnet2"
	case *types.VirtualE1000:
		return "e1000"
	case *types.VirtualE1000e:
		return "e1000e"
	case *types.VirtualPCNet32:
		return "pcnet32"
	}
	return "vmxnet3"
}

// modelOf describes a VM as it is now, also one that a client made.
func (l *Lab) modelOf(sim *simulator.Context, vm *mo.VirtualMachine) *VM {
	c := vm.Config
	v := &VM{
		Name: vm.Name, UUID: c.InstanceUuid, BiosUUID: c.Uuid, GuestID: c.GuestId, Firmware: c.Firmware, CPUs: c.Hardware.NumCPU, CoresPerSocket: 1,
		MemoryMB: int64(c.Hardware.MemoryMB), HwVersion: c.Version, Annotation: c.Annotation, CBT: isTrue(c.ChangeTrackingEnabled), Template: c.Template,
	}
	if n := c.Hardware.NumCoresPerSocket; n > 0 {
		v.CoresPerSocket = n
	}
	v.SecureBoot = c.BootOptions != nil && isTrue(c.BootOptions.EfiSecureBootEnabled)
	v.Datastore, _ = parts(c.Files.VmPathName)
	controllers := map[int32]types.BaseVirtualDevice{}
	for _, d := range c.Hardware.Device {
		if _, ok := d.(types.BaseVirtualController); ok {
			controllers[d.GetVirtualDevice().Key] = d
		}
	}
	for _, x := range c.Hardware.Device {
		switch d := x.(type) {
		case *types.VirtualDisk:
			controller := controllers[d.ControllerKey]
			if controller == nil || d.UnitNumber == nil {
				continue
			}
			disk := Disk{Controller: controllerName(controller), Bus: controller.(types.BaseVirtualController).GetVirtualController().BusNumber,
				Unit: *d.UnitNumber, Capacity: d.CapacityInBytes}
			switch b := d.Backing.(type) {
			case *types.VirtualDiskFlatVer2BackingInfo:
				disk.File, disk.Mode, disk.UUID = b.FileName, b.DiskMode, b.Uuid
			case *types.VirtualDiskRawDiskMappingVer1BackingInfo:
				disk.File, disk.Mode, disk.UUID, disk.RDM = b.FileName, b.DiskMode, b.Uuid, strings.TrimSuffix(b.CompatibilityMode, "Mode")
			}
			disk.Datastore, _ = parts(disk.File)
			v.Disks = append(v.Disks, disk)
		case types.BaseVirtualEthernetCard:
			_, name, distributed := l.networkOf(sim, x.GetVirtualDevice().Backing)
			nic := NIC{Network: name, MAC: d.GetVirtualEthernetCard().MacAddress, Type: nicType(x), number: x.GetVirtualDevice().Key - 4000}
			if b, ok := x.GetVirtualDevice().Backing.(*types.VirtualEthernetCardDistributedVirtualPortBackingInfo); ok && distributed {
				nic.portgroup = b.Port.PortgroupKey
			}
			v.NICs = append(v.NICs, nic)
		case *types.VirtualPCIPassthrough:
			if b, ok := d.Backing.(*types.VirtualPCIPassthroughDeviceBackingInfo); ok {
				v.Passthrough = append(v.Passthrough, b.Id)
			}
		case *types.VirtualCdrom:
			if b, ok := d.Backing.(*types.VirtualCdromIsoBackingInfo); ok {
				v.ISO = b.FileName
			}
		}
	}
	if a := c.MemoryAllocation; a != nil && a.Reservation != nil {
		v.MemoryReserved = *a.Reservation
	}
	return v
}

// vmxOf is a VM's configuration file as it is now.
func (l *Lab) vmxOf(sim *simulator.Context, vm *mo.VirtualMachine) string {
	text := vmx(l.modelOf(sim, vm))
	for _, o := range vm.Config.ExtraConfig {
		option := o.GetOptionValue()
		if value, ok := option.Value.(string); ok && !strings.Contains(text, "\n"+option.Key+" = ") {
			text += fmt.Sprintf("%s = \"%s\"\n", option.Key, vmxEscape(value))
		}
	}
	return text
}

var vmxEscaper = strings.NewReplacer("|", "|7C", `"`, "|22", "\n", "|0A")

func vmxEscape(s string) string { return vmxEscaper.Replace(s) }

func vmxUnescape(s string) string {
	return strings.NewReplacer("|0A", "\n", "|22", `"`, "|7C", "|").Replace(s)
}

var vmxLine = regexp.MustCompile(`^\s*([\w.:\-]+)\s*=\s*"(.*)"\s*$`)

// readVMX reads a configuration file: keys in lower case.
func readVMX(file string) (map[string]string, error) {
	f, err := os.Open(file)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	keys := map[string]string{}
	lines := bufio.NewScanner(f)
	lines.Buffer(nil, 1<<20)
	for lines.Scan() {
		if found := vmxLine.FindStringSubmatch(lines.Text()); found != nil {
			keys[strings.ToLower(found[1])] = vmxUnescape(found[2])
		}
	}
	return keys, lines.Err()
}

// parseVMX makes a VM of a configuration file: what RegisterVM reads. Reference: vSphere Virtual Machine Administration, "Virtual Machine
// Files" (the .vmx has the configuration, descriptors have the disks). extra has the keys that are no part of the hardware.
func (l *Lab) parseVMX(name string) (v *VM, extra map[string]string, fault types.BaseMethodFault) {
	keys, err := readVMX(l.localPath(name))
	if err != nil {
		return nil, nil, &types.NotFound{}
	}
	if keys["displayname"] == "" && keys["config.version"] == "" {
		return nil, nil, &types.InvalidVmConfig{Property: name}
	}
	number := func(key string, otherwise int64) int64 {
		if n, err := strconv.ParseInt(keys[key], 10, 64); err == nil {
			return n
		}
		return otherwise
	}
	v = &VM{
		Name: keys["displayname"], UUID: plainUUID(keys["vc.uuid"]), BiosUUID: plainUUID(keys["uuid.bios"]), GuestID: guestID(keys["guestos"]), Firmware: "bios",
		CPUs: int32(number("numvcpus", 1)), CoresPerSocket: int32(number("cpuid.corespersocket", 1)), MemoryMB: number("memsize", 32),
		HwVersion: "vmx-" + keys["virtualhw.version"], Annotation: keys["annotation"], SecureBoot: strings.EqualFold(keys["uefi.secureboot.enabled"], "true"),
		Power: "off", Tools: "running", ShutdownSeconds: 1, MemoryReserved: number("sched.mem.min", 0),
	}
	if keys["firmware"] != "" {
		v.Firmware = keys["firmware"]
	}
	for i := 0; keys[fmt.Sprintf("pcipassthru%d.present", i)] != ""; i++ {
		v.Passthrough = append(v.Passthrough, keys[fmt.Sprintf("pcipassthru%d.id", i)])
	}
	if keys["ide1:0.devicetype"] == "cdrom-image" {
		v.ISO = l.volume(keys["ide1:0.filename"], keys["ide1:0.filename"])
	}
	v.Datastore, _ = parts(name)
	if fault = l.vmxDisks(name, keys, v); fault != nil {
		return nil, nil, fault
	}
	l.vmxNICs(keys, v)
	extra = map[string]string{}
	for key, value := range keys {
		if !hardwareKey.MatchString(key) {
			extra[key] = value
		}
	}
	return v, extra, nil
}

// hardwareKey are the keys that parseVMX reads.
var hardwareKey = regexp.MustCompile(`^(\.encoding|config\.|virtualhw\.|displayname|guestos|uuid\.|vc\.uuid|memsize|numvcpus|cpuid\.|firmware|` +
	`uefi\.|annotation|scsi\d|ide\d|sata\d|nvme\d|ethernet\d|pcipassthru|sched\.mem|govcsim)`)

var diskKey = regexp.MustCompile(`^(scsi|ide|sata|nvme)(\d+):(\d+)\.filename$`)

func (l *Lab) vmxDisks(name string, keys map[string]string, v *VM) types.BaseMethodFault {
	store, file := parts(name)
	var found []string
	for key := range keys {
		if diskKey.MatchString(key) && strings.HasSuffix(keys[key], ".vmdk") {
			found = append(found, key)
		}
	}
	sort.Strings(found)
	for _, key := range found {
		at := diskKey.FindStringSubmatch(key)
		bus, _ := strconv.Atoi(at[2])
		unit, _ := strconv.Atoi(at[3])
		d := Disk{Controller: at[1], Bus: int32(bus), Unit: int32(unit), Mode: "persistent", Provisioning: "thick"}
		if at[1] == "scsi" {
			d.Controller = map[string]string{"lsisas1068": "lsilogic-sas", "pvscsi": "pvscsi",
				"buslogic": "buslogic"}[keys[fmt.Sprintf("scsi%d.virtualdev", bus)]]
			if d.Controller == "" {
				d.Controller = "lsilogic"
			}
		}
		address := fmt.Sprintf("%s%d:%d", at[1], bus, unit)
		if mode := keys[address+".mode"]; mode != "" {
			d.Mode = strings.ReplaceAll(mode, "-", "_")
		}
		d.File = l.volume(keys[key], fmt.Sprintf("[%s] %s", store, path.Join(path.Dir(file), keys[key])))
		d.Datastore, _ = parts(d.File)
		if fault := l.readDescriptor(&d); fault != nil {
			return fault
		}
		v.CBT = v.CBT || strings.EqualFold(keys[address+".ctkenabled"], "true")
		v.Disks = append(v.Disks, d)
	}
	return nil
}

// volume is the datastore path of a file that a .vmx names by its place among all volumes; otherwise of one beside it.
func (l *Lab) volume(name, otherwise string) string {
	rest, absolute := strings.CutPrefix(name, "/vmfs/volumes/")
	if !absolute {
		return otherwise
	}
	id, rest, _ := strings.Cut(rest, "/")
	for _, s := range l.datastores {
		if path.Base(s.Folder) == id || s.Model.Name == id {
			return fmt.Sprintf("[%s] %s", s.Model.Name, rest)
		}
	}
	return otherwise
}

var (
	extentLine = regexp.MustCompile(`(?m)^RW (\d+) `)
	uuidLine   = regexp.MustCompile(`(?m)^ddb\.uuid = "([^"]+)"`)
	parentLine = regexp.MustCompile(`(?m)^parentFileNameHint="([^"]+)"`)
)

// readDescriptor takes capacity, format and UUID from a disk's descriptors: of a delta from its base.
func (l *Lab) readDescriptor(d *Disk) types.BaseMethodFault {
	name := d.File
	for range 64 {
		text, err := os.ReadFile(l.localPath(name))
		if err != nil {
			if d.Capacity, d.RDM, d.UUID = l.mappings(d.File); d.Capacity > 0 {
				return nil
			}
			return &types.FileNotFound{FileFault: types.FileFault{File: name}}
		}
		if found := extentLine.FindSubmatch(text); found != nil && d.Capacity == 0 {
			sectors, _ := strconv.ParseInt(string(found[1]), 10, 64)
			d.Capacity = sectors * sector
		}
		parent := parentLine.FindSubmatch(text)
		if parent == nil {
			if found := uuidLine.FindSubmatch(text); found != nil {
				d.UUID = plainUUID(string(found[1]))
			}
			if thinLine.Match(text) {
				d.Provisioning = "thin"
			}
			return nil
		}
		store, file := parts(name)
		name = fmt.Sprintf("[%s] %s", store, path.Join(path.Dir(file), string(parent[1])))
	}
	return &types.FileFault{File: name}
}

// mappings are disks without descriptors in the lab: raw device mappings, and disks of bulk VMs, which have no bytes.
func (l *Lab) mappings(file string) (capacity int64, rdm, uuid string) {
	l.moves.mu.Lock()
	defer l.moves.mu.Unlock()
	for _, p := range l.moves.parked {
		for _, d := range p.model.Disks {
			if d.File == file {
				return d.Capacity, d.RDM, d.UUID
			}
		}
	}
	return 0, "", ""
}

func (l *Lab) vmxNICs(keys map[string]string, v *VM) {
	for i := range int32(10) {
		at := fmt.Sprintf("ethernet%d.", i)
		if !strings.EqualFold(keys[at+"present"], "true") {
			continue
		}
		n := NIC{Network: keys[at+"networkname"], MAC: keys[at+"address"], Type: keys[at+"virtualdev"], number: i,
			portgroup: keys[at+"dvs.portgroupid"]}
		if n.MAC == "" {
			n.MAC = keys[at+"generatedaddress"]
		}
		if _, ok := nicKinds[n.Type]; !ok {
			n.Type = "e1000"
		}
		if n.portgroup != "" {
			for _, r := range l.dc.Network {
				if pg, ok := l.service.Context.Map.Get(r).(*simulator.DistributedVirtualPortgroup); ok && pg.Key == n.portgroup {
					n.Network = pg.Name
				}
			}
		}
		v.NICs = append(v.NICs, n)
	}
}

// plainUUID reads "50 21 …-… " as 8-4-4-4-12.
func plainUUID(text string) string {
	hex := strings.NewReplacer(" ", "", "-", "").Replace(text)
	if len(hex) != 32 {
		return text
	}
	return strings.Join([]string{hex[:8], hex[8:12], hex[12:16], hex[16:20], hex[20:]}, "-")
}

// guestID is the opposite of what vmx writes: debian12-64 to debian12_64Guest.
func guestID(guestos string) string {
	if guestos == "" {
		return "otherGuest"
	}
	if base, ok := strings.CutSuffix(guestos, "-64"); ok {
		if id := base + "_64Guest"; slices.Contains(types.VirtualMachineGuestOsIdentifier("").Strings(), id) {
			return id
		}
		guestos = base + "64"
	}
	return guestos + "Guest"
}
