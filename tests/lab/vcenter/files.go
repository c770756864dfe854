// Copyright (c) 2026, ferry.vmware contributors
// GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
// SPDX-License-Identifier: GPL-3.0-or-later

package main

import (
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/vmware/govmomi/object"
	"github.com/vmware/govmomi/simulator"
	"github.com/vmware/govmomi/vim25/mo"
	"github.com/vmware/govmomi/vim25/soap"
	"github.com/vmware/govmomi/vim25/types"
)

// flatName is the extent of a descriptor: disk.vmdk to disk-flat.vmdk.
func flatName(file string) string {
	return strings.TrimSuffix(file, ".vmdk") + "-flat.vmdk"
}

// allocated is what a file occupies on disk, in bytes; 0 when there is none.
func allocated(file string) int64 {
	var st syscall.Stat_t
	if syscall.Stat(file, &st) != nil {
		return 0
	}
	return min(st.Blocks*512, st.Size)
}

// vmdkUUID writes a UUID as the descriptor and VirtualDiskFlatVer2BackingInfo.uuid have it in the product's own samples:
// "6000C29b-…". Hexadecimal digits are kept, in lower case but for the prefix's C.
func vmdkUUID(id string) string {
	id = strings.ToLower(id)
	if strings.HasPrefix(id, "6000c29") {
		return "6000C29" + id[7:]
	}
	return id
}

func contentID(id string) string {
	return fmt.Sprintf("%08x%024x", crc32.ChecksumIEEE([]byte(id)), 0)[:32]
}

// descriptor is the text of a disk on a datastore. Reference: VMware "Virtual Disk Format 5.0", chapter "Text Descriptor":
// createType "vmfs", extent type VMFS, sizes in sectors of 512 bytes. ddb.uuid is sixteen bytes in hexadecimal, a hyphen in
// the middle. On ESXi, thin disks carry ddb.thinProvisioned.
func descriptor(v *VM, i int) string {
	d := v.Disks[i]
	kind := controllerKinds[d.Controller]
	sectors := d.Capacity / 512
	heads, per := int64(255), int64(63)
	if kind.adapter == "ide" {
		heads = 16
	}
	cylinders := max(sectors/(heads*per), 1)
	if kind.adapter == "ide" {
		cylinders = min(cylinders, 16383)
	}
	hex := strings.ReplaceAll(vmdkUUID(d.UUID), "-", "")
	var pairs []string
	for j := 0; j+2 <= len(hex); j += 2 {
		pairs = append(pairs, strings.ToLower(hex[j:j+2]))
	}
	id := strings.Join(pairs[:8], " ") + "-" + strings.Join(pairs[8:], " ")
	flat := path.Base(flatName(diskFile(v, i)))
	thin := ""
	if d.Provisioning == "thin" {
		thin = "ddb.thinProvisioned = \"1\"\n"
	}
	return fmt.Sprintf(`# Disk DescriptorFile
version=1
encoding="UTF-8"
CID=%08x
parentCID=ffffffff
createType="vmfs"

# Extent description
RW %d VMFS "%s"

# The Disk Data Base 
#DDB

ddb.adapterType = "%s"
ddb.geometry.cylinders = "%d"
ddb.geometry.heads = "%d"
ddb.geometry.sectors = "%d"
ddb.longContentID = "%s"
%sddb.uuid = "%s"
ddb.virtualHWVersion = "%s"
`, crc32.ChecksumIEEE([]byte(d.UUID))&0x7fffffff, sectors, flat, kind.adapter, cylinders, heads, per, contentID(d.UUID), thin, id,
		strings.TrimPrefix(v.HwVersion, "vmx-"))
}

// writeFiles puts the VM's .vmx and the descriptor and bytes of each disk into the datastores' folders.
func (l *Lab) writeFiles(vm *simulator.VirtualMachine, v *VM) error {
	for i, d := range v.Disks {
		local := l.localPath(diskFile(v, i))
		if local == "" {
			return fmt.Errorf("disk %d: no datastore for %s", i+1, diskFile(v, i))
		}
		if d.Path == "" {
			continue // a bulk VM: nothing to read
		}
		if err := os.MkdirAll(filepath.Dir(local), 0o700); err != nil {
			return err
		}
		if err := os.WriteFile(local, []byte(descriptor(v, i)), 0o600); err != nil {
			return err
		}
		if err := place(flatName(local), d.Path, d.Capacity); err != nil {
			return fmt.Errorf("disk %d: %w", i+1, err)
		}
	}
	local := l.localPath(vm.Config.Files.VmPathName)
	if err := os.MkdirAll(filepath.Dir(local), 0o700); err != nil { // the simulator makes no folder on a vSAN
		return err
	}
	return os.WriteFile(local, []byte(vmx(v)), 0o600)
}

// place makes dst hold the bytes of src, capacity bytes long. A clone shares blocks and may be written; a hard link shares
// the file and must not be: whoever writes into a flat file calls own first. The model's file is never altered.
func place(dst, src string, capacity int64) error {
	st, err := os.Stat(src)
	if err != nil {
		return err
	}
	if st.Size() > capacity {
		return fmt.Errorf("%s has %d bytes, more than the disk's %d", src, st.Size(), capacity)
	}
	if err = clone(dst, src); err == nil {
		return os.Truncate(dst, capacity)
	}
	if st.Size() == capacity {
		if err = os.Link(src, dst); err == nil {
			return nil
		}
	}
	return sparseCopy(dst, src, capacity)
}

// clone shares the blocks of src (FICLONE, ioctl_ficlone(2)); file systems without it answer an error.
func clone(dst, src string) error {
	in, err := os.Open(src)
	if err != nil {
		return err
	}
	defer in.Close()
	out, err := os.OpenFile(dst, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	defer out.Close()
	const ficlone = 0x40049409
	if _, _, e := syscall.Syscall(syscall.SYS_IOCTL, out.Fd(), ficlone, in.Fd()); e != 0 {
		_ = os.Remove(dst)
		return e
	}
	return nil
}

// sparseCopy copies the data of src and leaves its holes (lseek(2), SEEK_DATA and SEEK_HOLE).
func sparseCopy(dst, src string, capacity int64) error {
	const seekData, seekHole = 3, 4
	in, err := os.Open(src)
	if err != nil {
		return err
	}
	defer in.Close()
	out, err := os.OpenFile(dst, os.O_CREATE|os.O_TRUNC|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	defer out.Close()
	for at := int64(0); ; {
		start, err := in.Seek(at, seekData)
		if errors.Is(err, syscall.ENXIO) {
			break
		} else if err != nil {
			return err
		}
		end, err := in.Seek(start, seekHole)
		if err != nil {
			return err
		}
		if _, err = io.Copy(io.NewOffsetWriter(out, start), io.NewSectionReader(in, start, end-start)); err != nil {
			return err
		}
		at = end
	}
	return out.Truncate(capacity)
}

// vmx is the configuration file, small but true. Reference: vSphere Virtual Machine Administration, "Virtual Machine Files".
func vmx(v *VM) string {
	var b strings.Builder
	set := func(key, format string, args ...any) {
		fmt.Fprintf(&b, "%s = \"%s\"\n", key, vmxEscape(fmt.Sprintf(format, args...)))
	}
	set(".encoding", "UTF-8")
	set("config.version", "8")
	set("virtualHW.version", "%s", strings.TrimPrefix(v.HwVersion, "vmx-"))
	set("displayName", "%s", v.Name)
	set("guestOS", "%s", strings.TrimSuffix(strings.ReplaceAll(v.GuestID, "_64Guest", "-64"), "Guest"))
	set("uuid.bios", "%s", vmxUUID(v.BiosUUID))
	set("vc.uuid", "%s", vmxUUID(v.UUID))
	set("memSize", "%d", v.MemoryMB)
	set("numvcpus", "%d", v.CPUs)
	set("cpuid.coresPerSocket", "%d", v.CoresPerSocket)
	if v.Firmware == "efi" {
		set("firmware", "efi")
	}
	if v.SecureBoot {
		set("uefi.secureBoot.enabled", "TRUE")
	}
	if v.Annotation != "" {
		set("annotation", "%s", v.Annotation)
	}
	device := map[string]string{"pvscsi": "pvscsi", "lsilogic": "lsilogic", "lsilogic-sas": "lsisas1068", "buslogic": "buslogic"}
	bus := map[string]string{"ide": "ide", "sata": "sata", "nvme": "nvme"}
	seen := map[string]bool{}
	for i, d := range v.Disks {
		prefix, ok := bus[d.Controller]
		if !ok {
			prefix = "scsi"
		}
		c := fmt.Sprintf("%s%d", prefix, d.Bus)
		if !seen[c] && prefix != "ide" {
			set(c+".present", "TRUE")
			if dev := device[d.Controller]; dev != "" {
				set(c+".virtualDev", "%s", dev)
			}
		}
		seen[c] = true
		at := fmt.Sprintf("%s:%d", c, d.Unit)
		set(at+".present", "TRUE")
		set(at+".fileName", "%s", vmxFile(v, i))
		if d.Mode != "" && d.Mode != "persistent" {
			set(at+".mode", "%s", strings.ReplaceAll(d.Mode, "_", "-"))
		}
		if v.CBT {
			set(at+".ctkEnabled", "TRUE")
		}
	}
	if v.MemoryReserved > 0 {
		set("sched.mem.min", "%d", v.MemoryReserved)
	}
	if v.ISO != "" {
		store, file := parts(v.ISO)
		set("ide1:0.present", "TRUE")
		set("ide1:0.deviceType", "cdrom-image")
		set("ide1:0.fileName", "/vmfs/volumes/%s/%s", fixedUUID("datastore:"+store), file)
	}
	for i, id := range v.Passthrough {
		set(fmt.Sprintf("pciPassthru%d.present", i), "TRUE")
		set(fmt.Sprintf("pciPassthru%d.id", i), "%s", id)
	}
	for i, n := range v.NICs {
		if n.number > 0 {
			i = int(n.number)
		}
		at := fmt.Sprintf("ethernet%d", i)
		if n.portgroup != "" {
			set(at+".dvs.portgroupId", "%s", n.portgroup)
		}
		set(at+".present", "TRUE")
		set(at+".virtualDev", "%s", n.Type)
		set(at+".networkName", "%s", n.Network)
		set(at+".addressType", "static")
		set(at+".address", "%s", n.MAC)
	}
	return b.String()
}

// vmxFile is a disk as a .vmx names it: beside itself, or by its place among all volumes.
func vmxFile(v *VM, i int) string {
	store, file := parts(diskFile(v, i))
	if store == v.Datastore {
		return path.Base(file)
	}
	return "/vmfs/volumes/" + fixedUUID("datastore:"+store) + "/" + file
}

// vmxUUID writes a UUID as a .vmx has it: sixteen bytes, a hyphen in the middle.
func vmxUUID(id string) string {
	hex := strings.ReplaceAll(id, "-", "")
	var pairs []string
	for i := 0; i+2 <= len(hex); i += 2 {
		pairs = append(pairs, hex[i:i+2])
	}
	if len(pairs) != 16 {
		return id
	}
	return strings.Join(pairs[:8], " ") + "-" + strings.Join(pairs[8:], " ")
}

// topFiles are the local files of the disks that a VM writes to now: not the parents of a chain.
func (l *Lab) topFiles(devices []types.BaseVirtualDevice) (files []string) {
	for _, d := range flatDisks(devices) {
		b := d.Backing.(*types.VirtualDiskFlatVer2BackingInfo)
		files = append(files, l.localPath(backingExtent(b)))
	}
	return files
}

// setLocks is called with the VM's lock held, whenever its power state or its devices have changed.
func (l *Lab) setLocks(vm *mo.VirtualMachine) {
	if vm.Config == nil || vm.Runtime.PowerState != types.VirtualMachinePowerStatePoweredOn {
		l.locks.Set(vm.Self, nil)
		return
	}
	l.locks.Set(vm.Self, l.topFiles(vm.Config.Hardware.Device))
}

// fixStorage makes the sizes true: a thin extent counts with what it occupies, a thick one with its capacity; the simulator
// takes each file's length. Reference: VirtualMachineFileLayoutExFileInfo.size ("file size in bytes, commonly the amount of
// space used"), VirtualMachineStorageSummary.committed and uncommitted.
func (l *Lab) fixStorage(vm *mo.VirtualMachine) {
	if vm.LayoutEx == nil || vm.Storage == nil {
		return
	}
	thin := map[string]int64{} // extent to its disk's capacity
	for _, d := range flatDisks(vm.Config.Hardware.Device) {
		b := d.Backing.(*types.VirtualDiskFlatVer2BackingInfo)
		for ; b.Parent != nil; b = b.Parent {
			thin[backingExtent(b)] = 0
		}
		if b.ThinProvisioned != nil && *b.ThinProvisioned {
			thin[flatName(b.FileName)] = d.CapacityInBytes
		}
	}
	usage := map[types.ManagedObjectReference]*types.VirtualMachineUsageOnDatastore{}
	for i := range vm.LayoutEx.File {
		f := &vm.LayoutEx.File[i]
		var p object.DatastorePath
		if !p.FromString(f.Name) {
			continue
		}
		ds, ok := l.datastores[p.Datastore]
		if !ok {
			continue
		}
		u := usage[ds.Ref]
		if u == nil {
			u = &types.VirtualMachineUsageOnDatastore{Datastore: ds.Ref}
			usage[ds.Ref] = u
		}
		if capacity, ok := thin[f.Name]; ok {
			f.Size = allocated(l.localPath(f.Name))
			f.UniqueSize = f.Size
			u.Uncommitted += max(capacity-f.Size, 0)
		}
		u.Committed += f.Size
		u.Unshared += f.Size
	}
	now := time.Now()
	summary := &types.VirtualMachineStorageSummary{Timestamp: now}
	vm.Storage.PerDatastoreUsage = nil
	for _, ref := range vm.Datastore {
		if u := usage[ref]; u != nil {
			vm.Storage.PerDatastoreUsage = append(vm.Storage.PerDatastoreUsage, *u)
			summary.Committed += u.Committed
			summary.Uncommitted += u.Uncommitted
			summary.Unshared += u.Unshared
		}
	}
	vm.Storage.Timestamp = now
	vm.Summary.Storage = summary
}

// RefreshStorageInfo is the simulator's, with true sizes. Reference: VirtualMachine.RefreshStorageInfo.
func (v *VirtualMachine) RefreshStorageInfo(ctx *simulator.Context, req *types.RefreshStorageInfo) soap.HasFault {
	res := refreshStorage(ctx, v.VirtualMachine, req)
	v.lab.fixStorage(&v.VirtualMachine.VirtualMachine)
	return res
}

// refreshStorage hides raw device mappings from the simulator, which takes every disk for a flat one. The caller holds the VM's lock.
func refreshStorage(ctx *simulator.Context, vm *simulator.VirtualMachine, req *types.RefreshStorageInfo) soap.HasFault {
	all := vm.Config.Hardware.Device
	vm.Config.Hardware.Device = slices.DeleteFunc(slices.Clone(all), raw)
	defer func() { vm.Config.Hardware.Device = all }()
	return vm.RefreshStorageInfo(ctx, req)
}

func raw(d types.BaseVirtualDevice) bool {
	_, found := d.GetVirtualDevice().Backing.(*types.VirtualDiskRawDiskMappingVer1BackingInfo)
	return found
}
