// Copyright (c) 2026, ferry.vmware contributors
// GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
// SPDX-License-Identifier: GPL-3.0-or-later

package main

import (
	"sync/atomic"
	"time"

	"github.com/vmware/govmomi/simulator"
	"github.com/vmware/govmomi/vim25/methods"
	"github.com/vmware/govmomi/vim25/mo"
	"github.com/vmware/govmomi/vim25/soap"
	"github.com/vmware/govmomi/vim25/types"
)

// RelocateVMTask: reference: VirtualMachine.RelocateVM_Task ("relocates a virtual machine's virtual disks to a specific location; optionally
// moves the virtual machine to a different host as well"); faults TaskInProgress, InvalidDatastore, and what the checks of
// VirtualMachineProvisioningChecker.CheckRelocate_Task tell.
func (v *VirtualMachine) RelocateVMTask(ctx *simulator.Context, req *types.RelocateVM_Task) soap.HasFault {
	body := &methods.RelocateVM_TaskBody{}
	ref, fault := v.lab.relocate(ctx, v.VirtualMachine, "RelocateVMTask", &req.Spec, "")
	if fault != nil {
		body.Fault_ = simulator.Fault(faultText(fault), fault)
		return body
	}
	body.Res = &types.RelocateVM_TaskResponse{Returnval: ref}
	return body
}

// MigrateVMTask: reference: VirtualMachine.MigrateVM_Task ("migrates a virtual machine's execution to a specific resource pool or host"):
// state ("if specified, the virtual machine migrates only if its state matches"); no files move.
func (v *VirtualMachine) MigrateVMTask(ctx *simulator.Context, req *types.MigrateVM_Task) soap.HasFault {
	body := &methods.MigrateVM_TaskBody{}
	spec := types.VirtualMachineRelocateSpec{Pool: req.Pool, Host: req.Host}
	if req.Pool == nil && req.Host == nil {
		fault := wrong("host")
		body.Fault_ = simulator.Fault(faultText(fault), fault)
		return body
	}
	ref, fault := v.lab.relocate(ctx, v.VirtualMachine, "MigrateVMTask", &spec, req.State)
	if fault != nil {
		body.Fault_ = simulator.Fault(faultText(fault), fault)
		return body
	}
	body.Res = &types.MigrateVM_TaskResponse{Returnval: ref}
	return body
}

func (l *Lab) relocate(ctx *simulator.Context, vm *simulator.VirtualMachine, name string, spec *types.VirtualMachineRelocateSpec,
	state types.VirtualMachinePowerState) (
	ref types.ManagedObjectReference, fault types.BaseMethodFault) {
	g, fault := l.begin(vm)
	if fault != nil {
		return ref, fault
	}
	g.moving.Store(true)
	return l.task(ctx, vm, name, func(sim *simulator.Context, t *simulator.Task) (types.AnyType, types.BaseMethodFault) {
		defer g.busy.Store(false)
		defer g.moving.Store(false)
		stop := l.cancelable(sim, t)
		defer l.settled(sim, t)
		return nil, l.carry(sim, t, vm, g, spec, state, stop)
	}), nil
}

// carry does the move: checks, time, then everything at once, so that a move that fails leaves all as it was.
func (l *Lab) carry(sim *simulator.Context, t *simulator.Task, vm *simulator.VirtualMachine, g *Guest, spec *types.VirtualMachineRelocateSpec,
	state types.VirtualMachinePowerState, stop *atomic.Bool) types.BaseMethodFault {
	var m *move
	var fault types.BaseMethodFault
	var before types.VmEvent
	sim.WithLock(vm, func() {
		if state != "" && state != vm.Runtime.PowerState {
			fault = &types.InvalidPowerState{RequestedState: state, ExistingState: vm.Runtime.PowerState}
			return
		}
		if m, fault = l.planMove(sim, vm, spec); fault != nil {
			return
		}
		if errors, _ := l.checkMove(sim, m); len(errors) > 0 {
			fault = errors[0]
			return
		}
		fault = l.reserve(m)
		before = l.vmEvent(vm)
		before.Ds = l.homeArgument(m, true)
	})
	if fault != nil {
		return fault
	}
	defer l.release(m)
	l.post(sim, starting(m, before, l))
	if fault = l.takeTime(sim, t, m, stop); fault == nil {
		sim.WithLock(vm, func() { fault = l.commit(sim, m, g) })
	}
	if fault != nil {
		l.post(sim, failing(m, before, l, fault))
		return fault
	}
	if m.folder != nil {
		l.intoFolder(sim, vm.Self, *m.folder)
	}
	sim.WithLock(vm, func() {
		after := l.vmEvent(vm)
		after.Ds = l.homeArgument(m, true) // where the configuration is by now
		l.post(sim, moved(m, before, after, l))
	})
	for _, s := range l.datastores {
		l.storeChanged(sim, s)
	}
	return nil
}

// takeTime is how long a move lasts, by the switches relocate_rate, relocate_seconds and migrate_seconds. The faults "relocate_fail" comes
// after the half; a host that is lost or a cancelled task ends it too.
func (l *Lab) takeTime(sim *simulator.Context, t *simulator.Task, m *move, stop *atomic.Bool) types.BaseMethodFault {
	name := m.vm.Name
	var bytes int64
	for _, n := range l.occupied(m) {
		bytes += n
	}
	seconds := 0.0
	if m.elsewhere() {
		seconds = l.switches.Number("migrate_seconds", name, 0)
	}
	if rate := l.switches.Number("relocate_rate", name, 0); rate > 0 {
		seconds += float64(bytes) / rate
	}
	if m.files() {
		seconds = l.switches.Number("relocate_seconds", name, seconds)
	}
	failing := l.faults.Take("relocate_fail", name)
	start := time.Now()
	for shown := -1; ; {
		part := 1.0
		if seconds > 0 {
			part = min(time.Since(start).Seconds()/seconds, 1)
		}
		switch {
		case stop.Load():
			return &types.RequestCanceled{}
		case failing != nil && part >= 0.5:
			return faultOr(failing.Fault, &types.GenericVmConfigFault{Reason: "The migration was stopped."})
		}
		for _, h := range []*simulator.HostSystem{m.from, m.to} {
			if h.Runtime.ConnectionState != types.HostSystemConnectionStateConnected {
				return &types.HostNotConnected{}
			}
		}
		if percent := int(part * 98); percent != shown {
			progress(sim, t, percent)
			shown = percent
		}
		if part >= 1 {
			return nil
		}
		time.Sleep(min(time.Duration((seconds-time.Since(start).Seconds())*float64(time.Second)), 20*time.Millisecond))
	}
}

// occupied is what has to be carried, in bytes by the disk's key.
func (l *Lab) occupied(m *move) map[int32]int64 {
	bytes := map[int32]int64{}
	for _, d := range flatDisks(m.vm.Config.Hardware.Device) {
		if m.disks[d.Key] == nil {
			continue
		}
		for b := d.Backing.(*types.VirtualDiskFlatVer2BackingInfo); b != nil; b = b.Parent {
			bytes[d.Key] += allocated(l.localPath(backingExtent(b)))
		}
	}
	return bytes
}

// reserve takes the space on the targets for as long as the move lasts: two moves at once cannot take the same.
func (l *Lab) reserve(m *move) types.BaseMethodFault {
	needs := l.incoming(m)
	l.moves.mu.Lock()
	defer l.moves.mu.Unlock()
	for s, n := range needs {
		if l.unreserved(s)-l.moves.reserved[s] < n {
			return &types.NoDiskSpace{FileFault: types.FileFault{File: "[" + s.Model.Name + "]"}, Datastore: s.Model.Name}
		}
	}
	for s, n := range needs {
		l.moves.reserved[s] += n
	}
	m.held = needs
	return nil
}

func (l *Lab) release(m *move) {
	l.moves.mu.Lock()
	defer l.moves.mu.Unlock()
	for s, n := range m.held {
		l.moves.reserved[s] -= n
	}
}

// free is what a datastore has, less what moves under way will take.
func (l *Lab) free(s *DatastoreState) int64 {
	l.moves.mu.Lock()
	defer l.moves.mu.Unlock()
	return l.unreserved(s) - l.moves.reserved[s]
}

func (l *Lab) unreserved(s *DatastoreState) int64 {
	used, _ := l.usage(s)
	return max(s.Model.Capacity-used-s.filled.Load(), 0)
}

// cancelable makes a task one that CancelTask ends. Reference: TaskInfo.cancelable, TaskInfo.cancelled.
func (l *Lab) cancelable(sim *simulator.Context, t *simulator.Task) *atomic.Bool {
	stop := &atomic.Bool{}
	l.moves.mu.Lock()
	l.moves.cancels[t.Self] = stop
	l.moves.mu.Unlock()
	sim.WithLock(t, func() { sim.Update(t, []types.PropertyChange{{Name: "info.cancelable", Val: true}}) })
	return stop
}

func (l *Lab) settled(_ *simulator.Context, t *simulator.Task) {
	l.moves.mu.Lock()
	delete(l.moves.cancels, t.Self)
	l.moves.mu.Unlock()
}

// Task is the simulator's, with a CancelTask that waits for the work to end: the simulator calls a task ended while it goes on.
// Reference: Task.CancelTask ("canceled … on a best-effort basis"), with RequestCanceled as the task's error.
type Task struct {
	*simulator.Task
	lab *Lab
}

func (t *Task) CancelTask(ctx *simulator.Context, req *types.CancelTask) soap.HasFault {
	t.lab.moves.mu.Lock()
	stop := t.lab.moves.cancels[t.Self]
	t.lab.moves.mu.Unlock()
	if stop == nil {
		return t.Task.CancelTask(ctx, req)
	}
	stop.Store(true)
	ctx.Update(t.Task, []types.PropertyChange{{Name: "info.cancelled", Val: true}})
	return &methods.CancelTaskBody{Res: &types.CancelTaskResponse{}}
}

func (l *Lab) intoFolder(sim *simulator.Context, vm, into types.ManagedObjectReference) {
	folder, ok := sim.Map.Get(into).(*simulator.Folder)
	if !ok {
		return
	}
	sim.WithLock(folder, func() {
		res := folder.MoveIntoFolderTask(sim, &types.MoveIntoFolder_Task{This: into,
			List: []types.ManagedObjectReference{vm}}).(*methods.MoveIntoFolder_TaskBody).Res
		sim.Map.Get(res.Returnval).(*simulator.Task).Wait()
	})
}

func (l *Lab) hostArgument(h *simulator.HostSystem) types.HostEventArgument {
	return types.HostEventArgument{EntityEventArgument: types.EntityEventArgument{Name: h.Name}, Host: h.Self}
}

// The events of a move. References: VmBeingHotMigratedEvent, VmBeingMigratedEvent, VmBeingRelocatedEvent, VmMigratedEvent, VmRelocatedEvent,
// VmFailedMigrateEvent, VmRelocateFailedEvent. A move of files of a VM that does not run is a relocation.
func starting(m *move, e types.VmEvent, l *Lab) types.BaseEvent {
	to, dc, ds := l.hostArgument(m.to), e.Datacenter, l.homeArgument(m, false)
	switch {
	case m.hot():
		return &types.VmBeingHotMigratedEvent{VmEvent: e, DestHost: to, DestDatacenter: dc, DestDatastore: ds}
	case m.files():
		return &types.VmBeingRelocatedEvent{VmRelocateSpecEvent: types.VmRelocateSpecEvent{VmEvent: e}, DestHost: to, DestDatacenter: dc,
			DestDatastore: ds}
	}
	return &types.VmBeingMigratedEvent{VmEvent: e, DestHost: to, DestDatacenter: dc, DestDatastore: ds}
}

func moved(m *move, before, after types.VmEvent, l *Lab) types.BaseEvent {
	from := l.hostArgument(m.from)
	if m.files() && !m.hot() {
		return &types.VmRelocatedEvent{VmRelocateSpecEvent: types.VmRelocateSpecEvent{VmEvent: after}, SourceHost: from,
			SourceDatacenter: before.Datacenter, SourceDatastore: before.Ds}
	}
	return &types.VmMigratedEvent{VmEvent: after, SourceHost: from, SourceDatacenter: before.Datacenter, SourceDatastore: before.Ds}
}

func failing(m *move, e types.VmEvent, l *Lab, fault types.BaseMethodFault) types.BaseEvent {
	to, dc, ds := l.hostArgument(m.to), e.Datacenter, l.homeArgument(m, false)
	if m.files() && !m.hot() {
		return &types.VmRelocateFailedEvent{VmRelocateSpecEvent: types.VmRelocateSpecEvent{VmEvent: e}, DestHost: to, Reason: localized(fault),
			DestDatacenter: dc, DestDatastore: ds}
	}
	return &types.VmFailedMigrateEvent{VmEvent: e, DestHost: to, Reason: localized(fault), DestDatacenter: dc, DestDatastore: ds}
}

// homeArgument is the datastore of the configuration, of the source or of the target.
func (l *Lab) homeArgument(m *move, source bool) *types.DatastoreEventArgument {
	s := m.home
	if s == nil || source {
		s = l.datastoreOf(m.vm.Config.Files.VmPathName)
	}
	if s == nil {
		return nil
	}
	return &types.DatastoreEventArgument{EntityEventArgument: types.EntityEventArgument{Name: s.Model.Name}, Datastore: s.Ref}
}

// relist changes a list of references of an inventory object, so that clients that wait for updates see it.
func relist(sim *simulator.Context, obj mo.Reference, property string, list *[]types.ManagedObjectReference,
	ref types.ManagedObjectReference, in bool) {
	sim.WithLock(obj, func() {
		own := make([]types.ManagedObjectReference, 0, len(*list)+1)
		for _, r := range *list {
			if r != ref {
				own = append(own, r)
			}
		}
		if in {
			own = append(own, ref)
		}
		sim.Update(obj, []types.PropertyChange{{Name: property, Val: own}})
	})
}

// relistPool does so for a pool or a vApp.
func relistPool(sim *simulator.Context, pool, vm types.ManagedObjectReference, in bool) {
	switch p := sim.Map.Get(pool).(type) {
	case *simulator.ResourcePool:
		relist(sim, p, "vm", &p.Vm, vm, in)
	case *simulator.VirtualApp:
		relist(sim, p, "vm", &p.Vm, vm, in)
	}
}
