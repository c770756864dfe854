// Copyright (c) 2026, ferry.vmware contributors
// GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
// SPDX-License-Identifier: GPL-3.0-or-later

package main

import (
	"fmt"
	"os"
	"path"
	"slices"
	"strings"
	"time"

	"github.com/vmware/govmomi/simulator"
	"github.com/vmware/govmomi/vim25/methods"
	"github.com/vmware/govmomi/vim25/mo"
	"github.com/vmware/govmomi/vim25/soap"
	"github.com/vmware/govmomi/vim25/types"
)

// VirtualMachineSnapshot is the simulator's snapshot with our methods in front.
type VirtualMachineSnapshot struct {
	*simulator.VirtualMachineSnapshot
	lab *Lab
}

// begin takes a VM for one operation on its snapshots; end gives it back. Reference: fault TaskInProgress ("if the virtual machine
// is busy"). The caller holds the VM's lock.
func (l *Lab) begin(vm *simulator.VirtualMachine) (*Guest, types.BaseMethodFault) {
	g, err := l.guest(&vm.VirtualMachine)
	if err != nil {
		return nil, &types.FileFault{File: err.Error()}
	}
	if g.exported() || !g.busy.CompareAndSwap(false, true) {
		return nil, &types.TaskInProgress{Task: types.ManagedObjectReference{Type: "Task", Value: "task-0"}}
	}
	return g, nil
}

// maxSnapshots in a chain. Reference: VMware KB 1025279 ("a maximum of 32 snapshots are supported in a chain").
const maxSnapshots = 32

func (g *Guest) depth() (depth int) {
	g.mu.Lock()
	defer g.mu.Unlock()
	for _, v := range g.disks {
		n := 0
		for l := v.top; l.parent != nil; l = l.parent {
			n++
		}
		depth = max(depth, n)
	}
	return depth
}

// CreateSnapshotTask: reference: VirtualMachine.CreateSnapshot_Task (name, description, memory, quiesce).
func (v *VirtualMachine) CreateSnapshotTask(ctx *simulator.Context, req *types.CreateSnapshot_Task) soap.HasFault {
	body := &methods.CreateSnapshot_TaskBody{}
	ref, fault := v.lab.createSnapshot(ctx, v.VirtualMachine, req.Name, req.Description, req.Quiesce && !req.Memory)
	if fault != nil {
		body.Fault_ = simulator.Fault(faultText(fault), fault)
		return body
	}
	body.Res = &types.CreateSnapshot_TaskResponse{Returnval: ref}
	return body
}

// CreateSnapshotExTask: reference: VirtualMachine.CreateSnapshotEx_Task; with a quiesceSpec "the snapshot is quiesced".
func (v *VirtualMachine) CreateSnapshotExTask(ctx *simulator.Context, req *types.CreateSnapshotEx_Task) soap.HasFault {
	body := &methods.CreateSnapshotEx_TaskBody{}
	ref, fault := v.lab.createSnapshot(ctx, v.VirtualMachine, req.Name, req.Description, req.QuiesceSpec != nil && !req.Memory)
	if fault != nil {
		body.Fault_ = simulator.Fault(faultText(fault), fault)
		return body
	}
	body.Res = &types.CreateSnapshotEx_TaskResponse{Returnval: ref}
	return body
}

// cannotQuiesce: reference: ApplicationQuiesceFault ("raised when the quiesce operation failed in the guest's applications", with VSS),
// FilesystemQuiesceFault; "if the virtual machine is powered on and VMware Tools are available, the snapshot is quiesced": vCenter
// fails the task where Tools are installed and do not answer.
func (l *Lab) cannotQuiesce(vm *mo.VirtualMachine) types.BaseMethodFault {
	if f := l.faults.Take("quiesce_fail", vm.Name); f != nil {
		fault, err := newFault(f.Fault)
		if err != nil {
			fault = &types.ApplicationQuiesceFault{}
		}
		return fault
	}
	if vm.Runtime.PowerState == types.VirtualMachinePowerStatePoweredOn &&
		(vm.Guest == nil || vm.Guest.ToolsRunningStatus != string(types.VirtualMachineToolsRunningStatusGuestToolsRunning)) {
		return &types.FilesystemQuiesceFault{}
	}
	return nil
}

func (l *Lab) createSnapshot(ctx *simulator.Context, vm *simulator.VirtualMachine, name, description string, quiesce bool) (ref types.ManagedObjectReference, fault types.BaseMethodFault) {
	g, fault := l.begin(vm)
	if fault != nil {
		return ref, fault
	}
	if g.depth() >= maxSnapshots {
		g.busy.Store(false)
		return ref, &types.TooManySnapshotLevels{}
	}
	return l.task(ctx, vm, "CreateSnapshotTask", func(sim *simulator.Context, t *simulator.Task) (types.AnyType, types.BaseMethodFault) {
		defer g.busy.Store(false)
		if f := l.faults.Take("snapshot_create_fail", vm.Name); f != nil {
			return nil, faultOr(f.Fault, &types.SnapshotFault{})
		}
		if quiesce {
			var cannot types.BaseMethodFault
			sim.WithLock(vm, func() { cannot = l.cannotQuiesce(&vm.VirtualMachine) })
			if cannot != nil {
				return nil, cannot
			}
		}
		pause(sim, t, l.switches.Number("snapshot_seconds", vm.Name, 0), 1, 90)
		var snapshot *simulator.VirtualMachineSnapshot
		var err error
		sim.WithLock(vm, func() {
			snapshot, err = l.freeze(sim, vm, g, name, description, quiesce && vm.Runtime.PowerState == types.VirtualMachinePowerStatePoweredOn)
		})
		if err != nil {
			return nil, &types.FileFault{File: err.Error()}
		}
		return snapshot.Self, nil
	}), nil
}

func faultOr(name string, otherwise types.BaseMethodFault) types.BaseMethodFault {
	if fault, err := newFault(name); err == nil {
		return fault
	}
	return otherwise
}

// freeze makes the snapshot: all disks stand still at one moment, and the VM goes on in new deltas. Reference: vSphere Virtual
// Machine Administration, "Managing Snapshots": "the virtual machine's state at the time", "independent disks are not included".
func (l *Lab) freeze(sim *simulator.Context, vm *simulator.VirtualMachine, g *Guest, name, description string, quiesced bool) (*simulator.VirtualMachineSnapshot, error) {
	snapshot := &simulator.VirtualMachineSnapshot{}
	snapshot.Vm = vm.Self
	snapshot.Config = *vm.Config
	frozen := &Frozen{name: name, created: time.Now(), disks: map[int32]*FrozenDisk{}}
	g.mu.Lock()
	var made []*VDisk
	for _, v := range g.disks {
		if v.independent {
			continue
		}
		f := &FrozenDisk{layer: v.top, capacity: v.capacity, writes: v.writes}
		if _, err := l.grow(v, v.top, l.deltaFormat(vm.Name, v)); err != nil {
			for _, back := range made {
				top := back.top
				back.top = top.parent
				l.drop(back, top)
			}
			g.mu.Unlock()
			return nil, err
		}
		made = append(made, v)
		frozen.disks[v.key] = f
	}
	for _, v := range made {
		if t := v.track; t != nil {
			f := frozen.disks[v.key]
			f.used, f.whole = t.used.Clone(), t.whole
			t.roll()
			f.uuid, f.seq = t.uuid, t.seq
		}
	}
	frozen.sequence = g.sequence
	g.mu.Unlock()

	sim.Map.Put(snapshot)
	frozen.ref = snapshot.Self
	g.mu.Lock()
	snapshot.Config.Hardware.Device = l.devices(vm.Config.Hardware.Device, func(key int32) (*Layer, string) {
		if v := g.disks[key]; v != nil && v.independent {
			return v.top, ""
		}
		return frozen.backing(key)
	})
	g.snaps[snapshot.Self.Value] = frozen
	g.mu.Unlock()

	id := int32(l.snapshots.Add(1))
	if folder := l.localPath(vm.Config.Files.VmPathName); folder != "" {
		file := fmt.Sprintf("%s-Snapshot%d.vmsn", fileName(vm.Name), id)
		_ = os.WriteFile(path.Join(path.Dir(folder), file), nil, 0o600)
	}
	item := types.VirtualMachineSnapshotTree{
		Snapshot: snapshot.Self, Vm: vm.Self, Name: name, Description: description, Id: id, CreateTime: frozen.created,
		State: vm.Runtime.PowerState, Quiesced: quiesced, ReplaySupported: types.NewBool(false),
	}
	info := types.VirtualMachineSnapshotInfo{}
	if vm.Snapshot != nil {
		info = *vm.Snapshot
	}
	if info.CurrentSnapshot == nil || !hang(&info.RootSnapshotList, *info.CurrentSnapshot, item) {
		info.RootSnapshotList = append(slices.Clone(info.RootSnapshotList), item)
	} else if parent, ok := sim.Map.Get(*info.CurrentSnapshot).(*simulator.VirtualMachineSnapshot); ok {
		parent.ChildSnapshot = append(parent.ChildSnapshot, snapshot.Self)
	}
	info.CurrentSnapshot = &snapshot.Self
	l.stun(vm, g)
	l.configure(sim, &vm.VirtualMachine, g, snapshotChanges(&info)...)
	return snapshot, nil
}

// snapshotChanges are the properties snapshot and rootSnapshot. Reference: VirtualMachine.snapshot ("unset if there are none").
func snapshotChanges(info *types.VirtualMachineSnapshotInfo) []types.PropertyChange {
	if len(info.RootSnapshotList) == 0 {
		return []types.PropertyChange{{Name: "snapshot", Val: nil}, {Name: "rootSnapshot", Val: nil}}
	}
	refs := []types.ManagedObjectReference{}
	for _, x := range info.RootSnapshotList {
		refs = append(refs, x.Snapshot)
	}
	return []types.PropertyChange{{Name: "snapshot", Val: *info}, {Name: "rootSnapshot", Val: refs}}
}

// hang puts an item below a snapshot of a tree; the lists on the way are new ones, since clients may still read the old ones.
func hang(list *[]types.VirtualMachineSnapshotTree, under types.ManagedObjectReference, item types.VirtualMachineSnapshotTree) bool {
	own := slices.Clone(*list)
	for i := range own {
		if own[i].Snapshot == under {
			own[i].ChildSnapshotList = append(slices.Clone(own[i].ChildSnapshotList), item)
			*list = own
			return true
		}
		if hang(&own[i].ChildSnapshotList, under, item) {
			*list = own
			return true
		}
	}
	return false
}

// cut takes a snapshot out of a tree, with its children or leaving them to its parent; parent is the one above it.
func cut(list []types.VirtualMachineSnapshotTree, ref types.ManagedObjectReference, children bool, above *types.ManagedObjectReference) (
	left []types.VirtualMachineSnapshotTree, gone []types.ManagedObjectReference, parent *types.ManagedObjectReference) {
	for _, x := range list {
		if x.Snapshot != ref {
			self := x.Snapshot
			below, removed, p := cut(x.ChildSnapshotList, ref, children, &self)
			x.ChildSnapshotList = below
			if removed != nil {
				gone, parent = removed, p
			}
			left = append(left, x)
			continue
		}
		gone, parent = []types.ManagedObjectReference{ref}, above
		if children {
			gone = append(gone, allIn(x.ChildSnapshotList)...)
		} else {
			left = append(left, x.ChildSnapshotList...)
		}
	}
	return left, gone, parent
}

func allIn(list []types.VirtualMachineSnapshotTree) (refs []types.ManagedObjectReference) {
	for _, x := range list {
		refs = append(append(refs, x.Snapshot), allIn(x.ChildSnapshotList)...)
	}
	return refs
}

// unlist takes snapshots out of the VM's tree; their layers wait for consolidation. The caller holds the VM's lock.
func (l *Lab) unlist(sim *simulator.Context, vm *simulator.VirtualMachine, g *Guest, info types.VirtualMachineSnapshotInfo, gone []types.ManagedObjectReference) {
	g.mu.Lock()
	for _, ref := range gone {
		delete(g.snaps, ref.Value)
	}
	g.stale = l.waiting(g)
	g.mu.Unlock()
	l.configure(sim, &vm.VirtualMachine, g, snapshotChanges(&info)...)
	for _, ref := range gone {
		if snap, ok := sim.Map.Get(ref).(*simulator.VirtualMachineSnapshot); ok {
			for _, item := range gone {
				snap.ChildSnapshot = slices.DeleteFunc(slices.Clone(snap.ChildSnapshot), func(r types.ManagedObjectReference) bool { return r == item })
			}
		}
		sim.Map.Remove(sim, ref)
	}
	if folder := l.localPath(vm.Config.Files.VmPathName); folder != "" && len(info.RootSnapshotList) == 0 {
		entries, _ := os.ReadDir(path.Dir(folder))
		for _, e := range entries {
			if strings.HasSuffix(e.Name(), ".vmsn") {
				_ = os.Remove(path.Join(path.Dir(folder), e.Name()))
			}
		}
	}
}

// RemoveSnapshotTask: reference: VirtualMachineSnapshot.RemoveSnapshot_Task: removeChildren, consolidate ("if not set, it defaults
// to true": disks "will be consolidated").
func (s *VirtualMachineSnapshot) RemoveSnapshotTask(ctx *simulator.Context, req *types.RemoveSnapshot_Task) soap.HasFault {
	body := &methods.RemoveSnapshot_TaskBody{}
	ref, fault := s.lab.removeSnapshots(ctx, s.Vm, "RemoveSnapshotTask", &req.This, req.RemoveChildren, req.Consolidate == nil || *req.Consolidate)
	if fault != nil {
		body.Fault_ = simulator.Fault(faultText(fault), fault)
		return body
	}
	body.Res = &types.RemoveSnapshot_TaskResponse{Returnval: ref}
	return body
}

// RemoveAllSnapshotsTask: reference: VirtualMachine.RemoveAllSnapshots_Task.
func (v *VirtualMachine) RemoveAllSnapshotsTask(ctx *simulator.Context, req *types.RemoveAllSnapshots_Task) soap.HasFault {
	body := &methods.RemoveAllSnapshots_TaskBody{}
	ref, fault := v.lab.removeSnapshots(ctx, v.Self, "RemoveAllSnapshotsTask", nil, true, req.Consolidate == nil || *req.Consolidate)
	if fault != nil {
		body.Fault_ = simulator.Fault(faultText(fault), fault)
		return body
	}
	body.Res = &types.RemoveAllSnapshots_TaskResponse{Returnval: ref}
	return body
}

func (l *Lab) removeSnapshots(ctx *simulator.Context, of types.ManagedObjectReference, task string, which *types.ManagedObjectReference, children, consolidate bool) (
	ref types.ManagedObjectReference, fault types.BaseMethodFault) {
	vm, ok := ctx.Map.Get(of).(*simulator.VirtualMachine)
	if !ok {
		return ref, &types.ManagedObjectNotFound{Obj: of}
	}
	var g *Guest
	ctx.WithLock(vm, func() { g, fault = l.begin(vm) })
	if fault != nil {
		return ref, fault
	}
	return l.task(ctx, vm, task, func(sim *simulator.Context, t *simulator.Task) (types.AnyType, types.BaseMethodFault) {
		defer g.busy.Store(false)
		if f := l.faults.Take("snapshot_remove_fail", vm.Name); f != nil {
			return nil, faultOr(f.Fault, &types.SnapshotFault{})
		}
		sim.WithLock(vm, func() {
			if vm.Snapshot == nil {
				return
			}
			info := *vm.Snapshot
			gone := allIn(info.RootSnapshotList)
			if which == nil {
				info = types.VirtualMachineSnapshotInfo{}
			} else {
				var parent *types.ManagedObjectReference
				info.RootSnapshotList, gone, parent = cut(info.RootSnapshotList, *which, children, nil)
				if info.CurrentSnapshot != nil && slices.Contains(gone, *info.CurrentSnapshot) {
					info.CurrentSnapshot = parent
				}
			}
			l.unlist(sim, vm, g, info, gone)
		})
		progress(sim, t, 5)
		if !consolidate {
			return nil, nil
		}
		if f := l.faults.Take("consolidate_fail", vm.Name); f != nil {
			return nil, faultOr(f.Fault, &types.FileLocked{FileFault: types.FileFault{File: vm.Config.Files.VmPathName}})
		}
		return nil, l.consolidate(sim, t, vm, g)
	}), nil
}

// ConsolidateVMDisksTask: reference: VirtualMachine.ConsolidateVMDisks_Task ("Consolidate the virtual disk files of the virtual machine
// by finding hierarchies of redo logs that can be combined without violating data dependency").
func (v *VirtualMachine) ConsolidateVMDisksTask(ctx *simulator.Context, _ *types.ConsolidateVMDisks_Task) soap.HasFault {
	body := &methods.ConsolidateVMDisks_TaskBody{}
	g, fault := v.lab.begin(v.VirtualMachine)
	if fault != nil {
		body.Fault_ = simulator.Fault(faultText(fault), fault)
		return body
	}
	ref := v.lab.task(ctx, v.VirtualMachine, "ConsolidateVMDisksTask", func(sim *simulator.Context, t *simulator.Task) (types.AnyType, types.BaseMethodFault) {
		defer g.busy.Store(false)
		if f := v.lab.faults.Take("consolidate_fail", v.Name); f != nil {
			return nil, faultOr(f.Fault, &types.FileLocked{})
		}
		return nil, v.lab.consolidate(sim, t, v.VirtualMachine, g)
	})
	body.Res = &types.ConsolidateVMDisks_TaskResponse{Returnval: ref}
	return body
}
