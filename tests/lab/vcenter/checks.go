// Copyright (c) 2026, ferry.vmware contributors
// GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
// SPDX-License-Identifier: GPL-3.0-or-later

package main

import (
	"fmt"
	"path"
	"slices"
	"strings"

	"github.com/vmware/govmomi/simulator"
	"github.com/vmware/govmomi/vim25/mo"
	"github.com/vmware/govmomi/vim25/types"
)

// move is a relocation as it was asked for, with everything looked up.
type move struct {
	vm     *simulator.VirtualMachine
	from   *simulator.HostSystem
	to     *simulator.HostSystem
	pool   *types.ManagedObjectReference // another one than now
	folder *types.ManagedObjectReference // another one than now
	home   *DatastoreState               // nil: the configuration stays
	disks  map[int32]*diskMove           // by key: what changes its place or format
	nics   []types.BaseVirtualDeviceConfigSpec
	held   map[*DatastoreState]int64 // reserved on the targets, bytes
}

// diskMove: to is where the disk will be, also when only its format changes.
type diskMove struct {
	to          *DatastoreState
	thin, eager *bool
}

func (m *move) hot() bool {
	return m.vm.Runtime.PowerState == types.VirtualMachinePowerStatePoweredOn
}

func (m *move) elsewhere() bool { return m.to.Self != m.from.Self }
func (m *move) files() bool     { return m.home != nil || len(m.disks) > 0 }

func (l *Lab) storeOf(ref types.ManagedObjectReference) *DatastoreState {
	for _, s := range l.datastores {
		if s.Ref == ref {
			return s
		}
	}
	return nil
}

// computeOf is the compute resource above a host or a pool: its hosts, its root pool, and the cluster where it is one.
func computeOf(sim *simulator.Context, ref types.ManagedObjectReference) (*mo.ComputeResource, *simulator.ClusterComputeResource) {
	for {
		switch x := sim.Map.Get(ref).(type) {
		case *simulator.ClusterComputeResource:
			return &x.ComputeResource, x
		case *mo.ComputeResource:
			return x, nil
		case *simulator.HostSystem:
			ref = *x.Parent
		case *simulator.ResourcePool:
			ref = x.Owner
		case *simulator.VirtualApp:
			ref = x.Owner
		default:
			return nil, nil
		}
	}
}

func wrong(property string) types.BaseMethodFault {
	return &types.InvalidArgument{InvalidProperty: property}
}

// planMove looks up what a specification names. Reference: VirtualMachineRelocateSpec: datastore ("if not specified, the current datastore
// is used"), disk ("the locators of the disks that are not to go to the common datastore"), pool ("if the argument is not supplied, the
// current resource pool of the virtual machine is used"), host, folder, deviceChange; InvalidArgument "if the target host and target pool
// are not associated with the same compute resource". The caller holds the VM's lock.
func (l *Lab) planMove(sim *simulator.Context, vm *simulator.VirtualMachine, spec *types.VirtualMachineRelocateSpec) (*move,
	types.BaseMethodFault) {
	m := &move{vm: vm, disks: map[int32]*diskMove{}, nics: spec.DeviceChange}
	var ok bool
	if m.from, ok = sim.Map.Get(*vm.Runtime.Host).(*simulator.HostSystem); !ok {
		return nil, &types.InvalidState{}
	}
	m.to = m.from
	if spec.Host != nil {
		if m.to, ok = sim.Map.Get(*spec.Host).(*simulator.HostSystem); !ok {
			return nil, &types.ManagedObjectNotFound{Obj: *spec.Host}
		}
	} else if spec.Pool != nil {
		if fault := l.anyHost(sim, m, *spec.Pool); fault != nil {
			return nil, fault
		}
	}
	target, _ := computeOf(sim, m.to.Self)
	pool := spec.Pool
	if pool == nil {
		pool = vm.ResourcePool
	}
	if pool != nil {
		owner, _ := computeOf(sim, *pool)
		if owner == nil {
			return nil, &types.ManagedObjectNotFound{Obj: *pool}
		}
		if owner.Self != target.Self {
			return nil, wrong("spec.pool")
		}
		if vm.ResourcePool == nil || *pool != *vm.ResourcePool {
			m.pool = pool
		}
	}
	if spec.Folder != nil && *spec.Folder != *vm.Parent {
		folder, ok := sim.Map.Get(*spec.Folder).(*simulator.Folder)
		if !ok {
			return nil, &types.ManagedObjectNotFound{Obj: *spec.Folder}
		}
		if !slices.Contains(folder.ChildType, "VirtualMachine") {
			return nil, wrong("spec.folder")
		}
		if sim.Map.FindByName(vm.Name, folder.ChildEntity) != nil {
			return nil, &types.DuplicateName{Name: vm.Name, Object: folder.Self}
		}
		m.folder = spec.Folder
	}
	return m, l.planDisks(m, spec)
}

// anyHost: reference: VirtualMachineRelocateSpec.host: "if pool is specified, and the target pool represents a cluster with DRS enabled,
// a host is selected by DRS"; else InvalidArgument.
func (l *Lab) anyHost(sim *simulator.Context, m *move, pool types.ManagedObjectReference) types.BaseMethodFault {
	owner, cluster := computeOf(sim, pool)
	switch {
	case owner == nil:
		return &types.ManagedObjectNotFound{Obj: pool}
	case slices.Contains(owner.Host, m.from.Self):
		return nil
	case cluster != nil && !drs(cluster):
		return wrong("spec.host")
	}
	for _, ref := range owner.Host {
		if h, ok := sim.Map.Get(ref).(*simulator.HostSystem); ok && l.available(h) == nil {
			m.to = h
			return nil
		}
	}
	return &types.NoCompatibleHost{}
}

func drs(c *simulator.ClusterComputeResource) bool {
	config, ok := c.ConfigurationEx.(*types.ClusterConfigInfoEx)
	return ok && config.DrsConfig.Enabled != nil && *config.DrsConfig.Enabled
}

// format is what a transformation or a backing asks for; nil where it stays. Reference: VirtualMachineRelocateSpec.transform (flat,
// sparse), VirtualMachineRelocateSpecDiskLocator.diskBackingInfo (VirtualDiskFlatVer2BackingInfo: thinProvisioned, eagerlyScrub).
func format(transform types.VirtualMachineRelocateTransformation, backing types.BaseVirtualDeviceBackingInfo) (thin, eager *bool,
	fault types.BaseMethodFault) {
	switch transform {
	case types.VirtualMachineRelocateTransformationFlat:
		thin, eager = types.NewBool(false), types.NewBool(false)
	case types.VirtualMachineRelocateTransformationSparse:
		thin, eager = types.NewBool(true), types.NewBool(false)
	}
	switch b := backing.(type) {
	case nil:
	case *types.VirtualDiskFlatVer2BackingInfo:
		if b.ThinProvisioned != nil || b.EagerlyScrub != nil {
			thin, eager = b.ThinProvisioned, b.EagerlyScrub
		}
	default:
		config := types.InvalidVmConfig{Property: "spec.disk.diskBackingInfo"}
		fault = &types.InvalidDeviceBacking{InvalidDeviceSpec: types.InvalidDeviceSpec{InvalidVmConfig: config}}
	}
	return thin, eager, fault
}

func isTrue(b *bool) bool { return b != nil && *b }

func (l *Lab) planDisks(m *move, spec *types.VirtualMachineRelocateSpec) types.BaseMethodFault {
	if spec.Datastore != nil {
		if m.home = l.storeOf(*spec.Datastore); m.home == nil {
			return &types.ManagedObjectNotFound{Obj: *spec.Datastore}
		}
	}
	located := map[int32]types.VirtualMachineRelocateSpecDiskLocator{}
	for i, d := range spec.Disk {
		if _, twice := located[d.DiskId]; twice {
			return wrong(fmt.Sprintf("spec.disk[%d].diskId", i))
		}
		located[d.DiskId] = d
	}
	for _, d := range flatDisks(m.vm.Config.Hardware.Device) {
		b := d.Backing.(*types.VirtualDiskFlatVer2BackingInfo)
		now := l.datastoreOf(b.FileName)
		if now == nil {
			return &types.FileNotFound{FileFault: types.FileFault{File: b.FileName}}
		}
		x := &diskMove{to: now}
		if m.home != nil {
			x.to = m.home
		}
		var backing types.BaseVirtualDeviceBackingInfo
		if at, ok := located[d.Key]; ok {
			delete(located, d.Key)
			if x.to = l.storeOf(at.Datastore); x.to == nil {
				return &types.ManagedObjectNotFound{Obj: at.Datastore}
			}
			backing = at.DiskBackingInfo
		}
		var fault types.BaseMethodFault
		if x.thin, x.eager, fault = format(spec.Transform, backing); fault != nil {
			return fault
		}
		base := b
		for base.Parent != nil {
			base = base.Parent
		}
		same := (x.thin == nil || isTrue(x.thin) == isTrue(base.ThinProvisioned)) && (x.eager == nil ||
			isTrue(x.eager) == isTrue(base.EagerlyScrub))
		if same {
			x.thin, x.eager = nil, nil
		}
		if x.to != now || !same {
			m.disks[d.Key] = x
		}
	}
	for key := range located {
		return wrong(fmt.Sprintf("spec.disk: no disk %d", key))
	}
	if m.home != nil && m.home == l.datastoreOf(m.vm.Config.Files.VmPathName) {
		m.home = nil
	}
	return nil
}

// checkMove tells everything that stands against a move: errors and warnings. The caller holds the VM's lock.
func (l *Lab) checkMove(sim *simulator.Context, m *move) (errors, warnings []types.BaseMethodFault) {
	vm := &m.vm.VirtualMachine
	fail := func(fault types.BaseMethodFault) { errors = append(errors, fault) }
	if vm.Runtime.ConnectionState != types.VirtualMachineConnectionStateConnected {
		// VirtualMachineConnectionState.disconnected: the server "is currently disconnected from the virtual machine"
		fail(&types.HostNotConnected{})
	} else if m.from.Runtime.ConnectionState != types.HostSystemConnectionStateConnected {
		fail(&types.HostNotConnected{})
	}
	if vm.Config.Template && m.hot() {
		fail(&types.InvalidState{})
	}
	if m.elsewhere() {
		if fault := l.available(m.to); fault != nil {
			fail(fault)
		}
		if m.hot() {
			l.checkHot(sim, m, fail)
		}
		if fault := l.cpu(m); fault != nil && vm.Runtime.PowerState != types.VirtualMachinePowerStatePoweredOff {
			fail(fault)
		}
		e, w := l.checkRules(sim, m)
		errors, warnings = append(errors, e...), append(warnings, w...)
	}
	for _, d := range vm.Config.Hardware.Device {
		if _, ok := d.(*types.VirtualPCIPassthrough); ok && (m.elsewhere() || m.hot() && m.files()) {
			fail(&types.DeviceNotSupported{Device: label(d), Reason: string(types.DeviceNotSupportedReasonHost)})
		}
	}
	e, w := l.checkStores(sim, m)
	errors, warnings = append(errors, e...), append(warnings, w...)
	e, w = l.checkNetworks(sim, m)
	return append(errors, e...), append(warnings, w...)
}

// checkHot: reference: VMotionNotConfigured ("a VMotion interface is not configured … on either the source or destination host"),
// RemoteDeviceNotSupported and CannotAccessVmDevice for connected devices of the host itself.
func (l *Lab) checkHot(_ *simulator.Context, m *move, fail func(types.BaseMethodFault)) {
	for i, h := range []*simulator.HostSystem{m.from, m.to} {
		if p := l.hostModel(h.Name); p != nil && p.NoVMotion {
			ref := h.Self
			fail(&types.VMotionNotConfigured{VMotionInterfaceIssue: types.VMotionInterfaceIssue{AtSourceHost: i == 0, FailedHost: h.Name,
				FailedHostEntity: &ref}})
		}
	}
	for _, d := range m.vm.Config.Hardware.Device {
		cd, ok := d.(*types.VirtualCdrom)
		if !ok || cd.Connectable == nil || !cd.Connectable.Connected {
			continue
		}
		switch b := cd.Backing.(type) {
		case *types.VirtualCdromIsoBackingInfo:
			if store := l.datastoreOf(b.FileName); store == nil || !slices.Contains(m.to.Datastore, store.Ref) {
				fail(&types.CannotAccessVmDevice{Device: label(d), Backing: b.FileName, Connected: true})
			}
		case *types.VirtualCdromAtapiBackingInfo:
			fail(&types.CannotAccessVmDevice{Device: label(d), Backing: b.DeviceName, Connected: true})
		}
	}
}

func label(d types.BaseVirtualDevice) string {
	if info := d.GetVirtualDevice().DeviceInfo; info != nil {
		return info.GetDescription().Label
	}
	return fmt.Sprint(d.GetVirtualDevice().Key)
}

func localized(fault types.BaseMethodFault) types.LocalizedMethodFault {
	return types.LocalizedMethodFault{Fault: fault, LocalizedMessage: faultText(fault)}
}

func (l *Lab) mounted(sim *simulator.Context, h *simulator.HostSystem, s *DatastoreState) bool {
	ds, ok := sim.Map.Get(s.Ref).(*simulator.Datastore)
	return ok && slices.Contains(h.Datastore, s.Ref) && ds.Summary.MaintenanceMode != string(types.DatastoreSummaryMaintenanceModeStateInMaintenance)
}

// checkStores: every file must be on a datastore that the target host has. References: CannotAccessVmConfig ("one of the virtual
// machine's configuration files are not accessible"), CannotAccessVmDisk, InvalidDatastore, InaccessibleDatastore, NoDiskSpace.
func (l *Lab) checkStores(sim *simulator.Context, m *move) (errors, warnings []types.BaseMethodFault) {
	vmx := m.vm.Config.Files.VmPathName
	home := m.home
	if home == nil {
		home = l.datastoreOf(vmx)
	}
	if home == nil || !l.mounted(sim, m.to, home) {
		if m.home != nil {
			errors = append(errors, &types.InvalidDatastore{Datastore: &m.home.Ref, Name: m.home.Model.Name})
		} else {
			errors = append(errors, &types.CannotAccessVmConfig{Reason: localized(&types.FileNotFound{FileFault: types.FileFault{File: vmx}})})
		}
	}
	for _, d := range flatDisks(m.vm.Config.Hardware.Device) {
		b := d.Backing.(*types.VirtualDiskFlatVer2BackingInfo)
		store := l.datastoreOf(b.FileName)
		if x := m.disks[d.Key]; x != nil {
			store = x.to
		}
		if store == nil || !l.mounted(sim, m.to, store) {
			errors = append(errors, &types.CannotAccessVmDisk{
				CannotAccessVmDevice: types.CannotAccessVmDevice{Device: label(d), Backing: b.FileName, Connected: true},
				Fault:                localized(&types.FileNotFound{FileFault: types.FileFault{File: b.FileName}})})
		}
	}
	for _, d := range m.vm.Config.Hardware.Device {
		if b, ok := d.GetVirtualDevice().Backing.(*types.VirtualDiskRawDiskMappingVer1BackingInfo); ok {
			if store := l.datastoreOf(b.FileName); m.elsewhere() && (store == nil || !l.mounted(sim, m.to, store)) {
				errors = append(errors, &types.CannotAccessVmDisk{
					CannotAccessVmDevice: types.CannotAccessVmDevice{Device: label(d), Backing: b.FileName, Connected: true},
					Fault:                localized(&types.FileNotFound{FileFault: types.FileFault{File: b.FileName}})})
			}
		}
	}
	for store, bytes := range l.incoming(m) {
		if bytes > l.free(store) {
			errors = append(errors, &types.NoDiskSpace{FileFault: types.FileFault{File: "[" + store.Model.Name + "] " + path.Base(path.Dir(vmx))},
				Datastore: store.Model.Name})
		}
	}
	return errors, warnings
}

// incoming is what a move adds to each datastore, in bytes: of a thin disk what it occupies, of a thick one its capacity.
func (l *Lab) incoming(m *move) map[*DatastoreState]int64 {
	needs := map[*DatastoreState]int64{}
	for _, d := range flatDisks(m.vm.Config.Hardware.Device) {
		x := m.disks[d.Key]
		if x == nil {
			continue
		}
		b := d.Backing.(*types.VirtualDiskFlatVer2BackingInfo)
		before, after := int64(0), int64(0)
		for ; b != nil; b = b.Parent {
			occupied := allocated(l.localPath(backingExtent(b)))
			if b.Parent != nil {
				before, after = before+occupied, after+occupied
				continue
			}
			thin := isTrue(b.ThinProvisioned)
			if before += occupied; !thin {
				before += d.CapacityInBytes - occupied
			}
			if x.thin != nil {
				thin = *x.thin
			}
			if after += occupied; !thin {
				after += d.CapacityInBytes - occupied
			}
		}
		if now := l.datastoreOf(d.Backing.(*types.VirtualDiskFlatVer2BackingInfo).FileName); now == x.to {
			after = max(after-before, 0)
		}
		needs[x.to] += after
	}
	return needs
}

// checkNetworks: reference: CannotAccessNetwork: "an error if … the virtual ethernet card device backing is a distributed virtual switch, of
// which the destination host is not a member", or "a standard network and the device is connected", "a warning otherwise".
func (l *Lab) checkNetworks(sim *simulator.Context, m *move) (errors, warnings []types.BaseMethodFault) {
	changed := map[int32]types.BaseVirtualDeviceBackingInfo{}
	for _, c := range m.nics {
		spec := c.GetVirtualDeviceConfigSpec()
		if _, ok := spec.Device.(types.BaseVirtualEthernetCard); !ok || spec.Operation != types.VirtualDeviceConfigSpecOperationEdit {
			errors = append(errors, wrong("spec.deviceChange"))
			continue
		}
		changed[spec.Device.GetVirtualDevice().Key] = spec.Device.GetVirtualDevice().Backing
	}
	for _, d := range m.vm.Config.Hardware.Device {
		if _, ok := d.(types.BaseVirtualEthernetCard); !ok {
			continue
		}
		dev := d.GetVirtualDevice()
		backing := dev.Backing
		edited, is := changed[dev.Key]
		if is {
			backing = edited
		}
		if !m.elsewhere() && !is {
			continue
		}
		network, name, distributed := l.networkOf(sim, backing)
		if network != nil && slices.Contains(m.to.Network, *network) {
			continue
		}
		connected := dev.Connectable == nil || dev.Connectable.Connected || !m.hot() && dev.Connectable.StartConnected
		fault := &types.CannotAccessNetwork{CannotAccessVmDevice: types.CannotAccessVmDevice{Device: label(d), Backing: name,
			Connected: connected}, Network: network}
		if distributed || connected || is {
			errors = append(errors, fault)
		} else {
			warnings = append(warnings, fault)
		}
	}
	return errors, warnings
}

// networkOf is the network behind a network adapter, where there is one.
func (l *Lab) networkOf(sim *simulator.Context, backing types.BaseVirtualDeviceBackingInfo) (ref *types.ManagedObjectReference, name string,
	distributed bool) {
	switch b := backing.(type) {
	case *types.VirtualEthernetCardNetworkBackingInfo:
		if b.Network != nil {
			return b.Network, b.DeviceName, false
		}
		if found := sim.Map.FindByName(b.DeviceName, l.dc.Network); found != nil {
			self := found.Reference()
			return &self, b.DeviceName, false
		}
		return nil, b.DeviceName, false
	case *types.VirtualEthernetCardDistributedVirtualPortBackingInfo:
		for _, r := range l.dc.Network {
			if pg, ok := sim.Map.Get(r).(*simulator.DistributedVirtualPortgroup); ok && pg.Key == b.Port.PortgroupKey {
				return &r, pg.Name, true
			}
		}
		return nil, b.Port.PortgroupKey, true
	}
	return nil, "", false
}

// evcModes of each vendor, the poorest first. Reference: VMware KB 1003212, "Enhanced vMotion Compatibility (EVC) processor support";
// EVCMode.key.
var evcModes = map[string][]string{
	"intel": {"intel-merom", "intel-penryn", "intel-nehalem", "intel-westmere", "intel-sandybridge", "intel-ivybridge", "intel-haswell", "intel-broadwell",
		"intel-skylake", "intel-cascadelake", "intel-icelake", "intel-sapphirerapids"},
	"amd": {"amd-rev-e", "amd-rev-f", "amd-greyhound-no3dnow", "amd-greyhound", "amd-bulldozer", "amd-piledriver",
		"amd-steamroller", "amd-zen", "amd-zen2", "amd-zen3", "amd-zen4"},
}

// evc compares two modes: whether a CPU of mode has can run what needs.
func evc(has, needs string) bool {
	vendor, _, _ := strings.Cut(needs, "-")
	modes := evcModes[vendor]
	return slices.Index(modes, has) >= slices.Index(modes, needs) && slices.Contains(modes, has)
}

// cpu: reference: VirtualMachineRuntimeInfo.minRequiredEVCModeKey, HostListSummary.maxEVCModeKey, CpuIncompatible1ECX.
func (l *Lab) cpu(m *move) types.BaseMethodFault {
	needs, has := m.vm.Runtime.MinRequiredEVCModeKey, m.to.Summary.MaxEVCModeKey
	if needs == "" || has == "" || evc(has, needs) {
		return nil
	}
	ref := m.to.Self
	return &types.CpuIncompatible1ECX{CpuIncompatible: types.CpuIncompatible{Level: 1, RegisterName: "ecx", Host: &ref}, Other: true}
}
