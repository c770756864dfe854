// Copyright (c) 2026, ferry.vmware contributors
// GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
// SPDX-License-Identifier: GPL-3.0-or-later

package main

import (
	"fmt"
	"os"
	"path"
	"slices"
	"sort"

	"github.com/vmware/govmomi/simulator"
	"github.com/vmware/govmomi/vim25/methods"
	"github.com/vmware/govmomi/vim25/mo"
	"github.com/vmware/govmomi/vim25/soap"
	"github.com/vmware/govmomi/vim25/types"
)

// Parked is what the files of an unregistered VM are: the open chains, the snapshots and the guest's temper.
type Parked struct {
	guest *Guest
	model *VM
	info  *types.VirtualMachineSnapshotInfo
}

// UnregisterVM: reference: VirtualMachine.UnregisterVM ("removes this virtual machine from the inventory without removing any of the
// virtual machine's files on storage. All high-level information stored with the management server is removed"); fault InvalidPowerState
// "if the virtual machine is powered on". Whether vCenter lets go a VM that ran on a host that does not respond is not documented: switch
// unregister_dead.
func (v *VirtualMachine) UnregisterVM(ctx *simulator.Context, _ *types.UnregisterVM) soap.HasFault {
	body := &methods.UnregisterVMBody{}
	if fault := v.lab.unregister(ctx, v.VirtualMachine, false); fault != nil {
		body.Fault_ = simulator.Fault(faultText(fault), fault)
		return body
	}
	body.Res = &types.UnregisterVMResponse{}
	return body
}

// unregister takes a VM out of the inventory; the caller holds its lock. with: its host goes too.
func (l *Lab) unregister(ctx *simulator.Context, vm *simulator.VirtualMachine, with bool) types.BaseMethodFault {
	lost := vm.Runtime.ConnectionState != types.VirtualMachineConnectionStateConnected
	on := vm.Runtime.PowerState == types.VirtualMachinePowerStatePoweredOn
	if on && !with && (!lost || l.switches.Get("unregister_dead", vm.Name, 0) == "refuse") {
		return &types.InvalidPowerState{RequestedState: types.VirtualMachinePowerStatePoweredOff, ExistingState: vm.Runtime.PowerState}
	}
	g, err := l.guest(&vm.VirtualMachine)
	if err != nil {
		return &types.FileFault{File: err.Error()}
	}
	model := l.modelOf(ctx, &vm.VirtualMachine)
	if state := l.stateOf(vm.Self); state != nil {
		model.resemble(&state.Model)
	}
	vmx := vm.Config.Files.VmPathName
	l.writeVMX(ctx, vm)
	parked := &Parked{guest: g, model: model}
	if vm.Snapshot != nil {
		info := *vm.Snapshot
		parked.info = &info
	}
	l.guestsMu.Lock()
	delete(l.guests, vm.Self) // so that the chains stay open
	l.guestsMu.Unlock()
	l.moves.mu.Lock()
	l.moves.parked[vmx] = parked
	delete(l.moves.stopped, vm.Self)
	l.moves.mu.Unlock()
	if on && l.locks.Held(vm.Self) { // it goes on where vCenter cannot see it
		l.locks.Hand(vm.Self, unseen(*vm.Runtime.Host, vmx))
	}
	host := vm.Runtime.Host
	l.leaveRules(ctx, vm.Self, *host)
	networks := slices.Clone(vm.Network)
	power := vm.Runtime.PowerState
	vm.Runtime.PowerState = types.VirtualMachinePowerStatePoweredOff
	res := vm.UnregisterVM(ctx, &types.UnregisterVM{This: vm.Self})
	vm.Runtime.PowerState = power
	if f := res.Fault(); f != nil {
		return &types.InvalidState{}
	}
	l.relistNetworks(ctx, vm.Self, networks, nil)
	if h, ok := ctx.Map.Get(*host).(*simulator.HostSystem); ok {
		relist(ctx, h, "vm", &h.Vm, vm.Self, false)
	}
	return nil
}

// unseen is the holder of locks that a VM has which runs on a host that vCenter has lost.
func unseen(host types.ManagedObjectReference, vmx string) types.ManagedObjectReference {
	return types.ManagedObjectReference{Type: "Unseen " + host.Value, Value: vmx}
}

// resemble takes over what stands in no configuration file: what the guest is like.
func (v *VM) resemble(old *VM) {
	v.Tools, v.ShutdownSeconds, v.HostName, v.GuestFullName = old.Tools, old.ShutdownSeconds, old.HostName, old.GuestFullName
	for i := range v.NICs {
		for _, n := range old.NICs {
			if n.MAC == v.NICs[i].MAC {
				v.NICs[i].IP = n.IP
			}
		}
	}
}

// Folder is the simulator's, with a RegisterVM that reads the configuration file.
type Folder struct {
	*simulator.Folder
	lab *Lab
}

// RegisterVMTask: reference: Folder.RegisterVM_Task (path, name, asTemplate, pool, host): "adds an existing virtual machine to the folder.
// Any % (percent) character used in this name parameter must be escaped"; faults AlreadyExists "if the virtual machine is already
// registered", DuplicateName, InvalidDatastore, NotFound "if the configuration file is not found", InvalidArgument.
func (f *Folder) RegisterVMTask(ctx *simulator.Context, req *types.RegisterVM_Task) soap.HasFault {
	ref := f.lab.taskOn(ctx, f.Self, f.Name, "RegisterVMTask", "Folder.registerVm", func(sim *simulator.Context,
		t *simulator.Task) (types.AnyType, types.BaseMethodFault) {
		pause(sim, t, f.lab.switches.Number("register_seconds", req.Name, 0), 1, 90)
		if x := f.lab.faults.Take("register_fail", req.Path); x != nil {
			return nil, faultOr(x.Fault, &types.InvalidState{})
		}
		ref, fault := f.lab.register(sim, f.Folder, req)
		if fault != nil {
			return nil, fault
		}
		return ref, nil
	})
	return &methods.RegisterVM_TaskBody{Res: &types.RegisterVM_TaskResponse{Returnval: ref}}
}

// registrar finds the host and the pool that a VM is registered on.
func (l *Lab) registrar(sim *simulator.Context, req *types.RegisterVM_Task, store *DatastoreState) (host *simulator.HostSystem,
	pool *types.ManagedObjectReference, fault types.BaseMethodFault) {
	var hosts []types.ManagedObjectReference
	pool = req.Pool
	switch {
	case req.AsTemplate && req.Host == nil:
		return nil, nil, wrong("host")
	case req.AsTemplate && req.Pool != nil, !req.AsTemplate && req.Pool == nil:
		return nil, nil, wrong("pool")
	case req.AsTemplate:
		owner, _ := computeOf(sim, *req.Host)
		if owner == nil {
			return nil, nil, wrong("host")
		}
		pool, hosts = owner.ResourcePool, []types.ManagedObjectReference{*req.Host}
	default:
		owner, _ := computeOf(sim, *req.Pool)
		if owner == nil {
			return nil, nil, &types.ManagedObjectNotFound{Obj: *req.Pool}
		}
		if hosts = owner.Host; req.Host != nil {
			if !slices.Contains(hosts, *req.Host) {
				return nil, nil, wrong("host")
			}
			hosts = []types.ManagedObjectReference{*req.Host}
		}
	}
	fault = &types.InvalidDatastore{Name: store.Model.Name, Datastore: &store.Ref}
	for _, ref := range hosts {
		h, ok := sim.Map.Get(ref).(*simulator.HostSystem)
		if !ok {
			continue
		}
		if state := l.available(h); state != nil {
			if _, away := state.(*types.HostNotConnected); away || req.Host != nil {
				fault = state
			}
			continue
		}
		if l.mounted(sim, h, store) {
			return h, pool, nil
		}
		fault = &types.InvalidDatastore{Name: store.Model.Name, Datastore: &store.Ref}
	}
	return nil, nil, fault
}

func (l *Lab) register(sim *simulator.Context, folder *simulator.Folder, req *types.RegisterVM_Task) (ref types.ManagedObjectReference,
	fault types.BaseMethodFault) {
	store := l.datastoreOf(req.Path)
	if _, file := parts(req.Path); file == "" || path.Ext(file) != ".vmx" && path.Ext(file) != ".vmtx" {
		return ref, &types.InvalidDatastorePath{InvalidDatastore: types.InvalidDatastore{}, DatastorePath: req.Path}
	}
	if store == nil {
		name, _ := parts(req.Path)
		return ref, &types.InvalidDatastore{Name: name}
	}
	for _, e := range sim.Map.All("VirtualMachine") {
		if vm := e.(*simulator.VirtualMachine); vm.Config != nil && vm.Config.Files.VmPathName == req.Path {
			return ref, &types.AlreadyExists{Name: vm.Self.Value}
		}
	}
	host, pool, fault := l.registrar(sim, req, store)
	if fault != nil {
		return ref, fault
	}
	v, extra, fault := l.parseVMX(req.Path)
	if fault != nil {
		return ref, fault
	}
	if req.Name != "" {
		v.Name = req.Name
	} else if v.Name == "" {
		_, file := parts(req.Path)
		v.Name = path.Base(path.Dir(file))
	}
	if found := sim.Map.FindByName(v.Name, folder.ChildEntity); found != nil {
		return ref, &types.DuplicateName{Name: v.Name, Object: found.Reference()}
	}
	v.Host, v.Template = host.Name, req.AsTemplate
	for _, d := range v.Disks {
		s := l.datastoreOf(d.File)
		if s == nil || !l.mounted(sim, host, s) {
			return ref, &types.InvalidDatastore{Name: d.Datastore}
		}
	}
	l.moves.mu.Lock()
	parked := l.moves.parked[req.Path]
	l.moves.mu.Unlock()
	if parked != nil {
		v.resemble(parked.model)
	}
	return l.admit(sim, folder, req.Path, v, extra, host, *pool, parked)
}

// admit makes the managed object and gives it the devices of the configuration file.
func (l *Lab) admit(sim *simulator.Context, folder *simulator.Folder, vmx string, v *VM, extra map[string]string, host *simulator.HostSystem,
	pool types.ManagedObjectReference, parked *Parked) (ref types.ManagedObjectReference, fault types.BaseMethodFault) {
	dir := path.Dir(l.localPath(vmx))
	for _, name := range []string{fileName(v.Name) + ".nvram", "vmware.log"} { // the simulator wants both
		if f, err := os.OpenFile(path.Join(dir, name), os.O_CREATE|os.O_WRONLY, 0o600); err == nil {
			_ = f.Close()
		}
	}
	hostRef := host.Self
	var inner *simulator.Task
	sim.WithLock(folder, func() {
		body := folder.RegisterVMTask(sim, &types.RegisterVM_Task{This: folder.Self, Path: vmx, Name: v.Name, Pool: &pool,
			Host: &hostRef}).(*methods.RegisterVM_TaskBody)
		inner = sim.Map.Get(body.Res.Returnval).(*simulator.Task)
	})
	inner.Wait()
	info := inner.Info
	sim.Map.Remove(sim, inner.Self)
	if info.Error != nil {
		return ref, info.Error.Fault
	}
	ref = info.Result.(types.ManagedObjectReference)
	vm := sim.Map.Get(ref).(*simulator.VirtualMachine)
	sim.WithLock(vm, func() {
		vm.Name, vm.Config.Name, vm.Summary.Config.Name = v.Name, v.Name, v.Name // the simulator escapes once more what a client has escaped
		fault = l.furnish(sim, vm, v, extra, parked)
	})
	if fault != nil {
		sim.WithLock(vm, func() { vm.UnregisterVM(sim, &types.UnregisterVM{This: ref}) })
		return ref, fault
	}
	if parked != nil {
		l.moves.mu.Lock()
		delete(l.moves.parked, vmx)
		l.moves.mu.Unlock()
	}
	sim.WithLock(vm, func() { l.post(sim, &types.VmRegisteredEvent{VmEvent: l.vmEvent(vm)}) })
	for _, r := range vm.Datastore {
		if s := l.storeOf(r); s != nil {
			l.storeChanged(sim, s)
		}
	}
	return ref, nil
}

func (l *Lab) furnish(sim *simulator.Context, vm *simulator.VirtualMachine, v *VM, extra map[string]string,
	parked *Parked) types.BaseMethodFault {
	c, s := vm.Config, &vm.Summary.Config
	c.Hardware.NumCPU, c.Hardware.NumCoresPerSocket, c.Hardware.MemoryMB = v.CPUs, v.CoresPerSocket, int32(v.MemoryMB)
	s.NumCpu, s.MemorySizeMB = v.CPUs, int32(v.MemoryMB)
	c.GuestId, s.GuestId = v.GuestID, v.GuestID
	if v.BiosUUID != "" {
		c.Uuid, s.Uuid = v.BiosUUID, v.BiosUUID
	}
	if v.UUID != "" {
		c.InstanceUuid = v.UUID
	}
	c.Version, c.Firmware, c.Annotation = v.HwVersion, v.Firmware, v.Annotation
	c.ChangeTrackingEnabled = types.NewBool(v.CBT)
	c.BootOptions = &types.VirtualMachineBootOptions{}
	if v.SecureBoot {
		c.BootOptions.EfiSecureBootEnabled = types.NewBool(true)
	}
	keys := make([]string, 0, len(extra))
	for key := range extra {
		keys = append(keys, key)
	}
	sort.Strings(keys)
	for _, key := range keys {
		c.ExtraConfig = append(c.ExtraConfig, &types.OptionValue{Key: key, Value: extra[key]})
	}
	vm.Datastore = nil
	if home := l.datastoreOf(c.Files.VmPathName); home != nil {
		vm.Datastore = []types.ManagedObjectReference{home.Ref}
	}
	if err := l.addDevices(vm, v); err != nil {
		return &types.InvalidVmConfig{VmConfigFault: types.VmConfigFault{}, Property: err.Error()}
	}
	l.vmsMu.Lock()
	l.vms[vm.Self] = &VMState{Model: *v, Ref: vm.Self}
	l.vmsMu.Unlock()
	if parked != nil {
		l.adopt(sim, vm, parked)
	}
	for _, f := range sim.Map.CustomFieldsManager().Field {
		if f.ManagedObjectType == "" || f.ManagedObjectType == "VirtualMachine" {
			vm.AvailableField = append(vm.AvailableField, f)
		}
	}
	l.settle(vm, v)
	if v.Template {
		l.makeTemplate(sim, vm)
	}
	stores, networks := l.uses(sim, &vm.VirtualMachine)
	sim.Update(vm, []types.PropertyChange{{Name: "config", Val: *vm.Config}, {Name: "summary", Val: vm.Summary},
		{Name: "datastore", Val: stores}, {Name: "network", Val: networks}})
	return nil
}

// adopt gives a VM the chains and the snapshots that its files had when it was unregistered. The snapshots keep their references, unlike
// the product's.
func (l *Lab) adopt(sim *simulator.Context, vm *simulator.VirtualMachine, parked *Parked) {
	g := parked.guest
	g.mu.Lock()
	g.ref, g.name, g.running = vm.Self, vm.Name, false
	g.busy.Store(false)
	g.moving.Store(false)
	for _, d := range flatDisks(vm.Config.Hardware.Device) {
		if v := g.disks[d.Key]; v != nil && v.top.name != d.Backing.(*types.VirtualDiskFlatVer2BackingInfo).FileName {
			delete(g.disks, d.Key) // the configuration names another file now
		}
	}
	g.mu.Unlock()
	l.guestsMu.Lock()
	l.guests[vm.Self] = g
	l.guestsMu.Unlock()
	var changes []types.PropertyChange
	if parked.info != nil {
		for _, ref := range allIn(parked.info.RootSnapshotList) {
			if snap, ok := sim.Map.Get(ref).(*simulator.VirtualMachineSnapshot); ok {
				snap.Vm = vm.Self
			}
		}
		info := *parked.info
		info.RootSnapshotList = ofVM(info.RootSnapshotList, vm.Self)
		changes = snapshotChanges(&info)
	}
	l.configure(sim, &vm.VirtualMachine, g, changes...)
}

func ofVM(list []types.VirtualMachineSnapshotTree, vm types.ManagedObjectReference) []types.VirtualMachineSnapshotTree {
	own := slices.Clone(list)
	for i := range own {
		own[i].Vm = vm
		own[i].ChildSnapshotList = ofVM(own[i].ChildSnapshotList, vm)
	}
	return own
}

// stateOf is what the model or the configuration file said of a VM; nil for one that a client made.
func (l *Lab) stateOf(ref types.ManagedObjectReference) *VMState {
	l.vmsMu.Lock()
	defer l.vmsMu.Unlock()
	return l.vms[ref]
}

// lockedBy says who else holds a VM's files, and which.
func (l *Lab) lockedBy(vm *mo.VirtualMachine) (file string, locked bool) {
	for _, d := range flatDisks(vm.Config.Hardware.Device) {
		b := d.Backing.(*types.VirtualDiskFlatVer2BackingInfo)
		if holder, ok := l.locks.Holder(l.localPath(backingExtent(b))); ok && holder != vm.Self {
			return b.FileName, true
		}
	}
	return "", false
}

func cannotLock(file string) *types.GenericVmConfigFault {
	text := fmt.Sprintf("Failed to lock the file: cannot open the disk '%s' or one of the snapshot disks it depends on.", file)
	fault := &types.GenericVmConfigFault{Reason: text}
	fault.FaultMessage = []types.LocalizableMessage{{Key: "msg.fileio.lock", Message: "Failed to lock the file"},
		{Key: "msg.disk.noBackEnd", Arg: []types.KeyAnyValue{{Key: "1", Value: file}}, Message: text},
		{Key: "msg.moduletable.powerOnFailed", Arg: []types.KeyAnyValue{{Key: "1", Value: "Disk"}}, Message: "Module 'Disk' power on failed."},
		{Key: "msg.vmx.poweron.failed", Message: "Failed to start the virtual machine."}}
	return fault
}
