// Copyright (c) 2026, ferry.vmware contributors
// GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
// SPDX-License-Identifier: GPL-3.0-or-later

package main

import (
	"fmt"
	"os"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/vmware/govmomi/simulator"
	"github.com/vmware/govmomi/vim25/methods"
	"github.com/vmware/govmomi/vim25/soap"
	"github.com/vmware/govmomi/vim25/types"
)

// Moves is what the lab keeps for moves of VMs and for hosts that come and go.
type Moves struct {
	mu       sync.Mutex
	reserved map[*DatastoreState]int64 // by moves under way, bytes
	cancels  map[types.ManagedObjectReference]*atomic.Bool
	parked   map[string]*Parked                    // by the .vmx of a VM that is not registered
	dead     map[types.ManagedObjectReference]bool // hosts that are gone; true: their VMs run on unseen
	stopped  map[types.ManagedObjectReference]bool // VMs that vCenter calls running, although they died with their host
	entering map[types.ManagedObjectReference]bool // hosts on the way into maintenance mode
}

func NewMoves() *Moves {
	return &Moves{reserved: map[*DatastoreState]int64{}, cancels: map[types.ManagedObjectReference]*atomic.Bool{}, parked: map[string]*Parked{},
		dead: map[types.ManagedObjectReference]bool{}, stopped: map[types.ManagedObjectReference]bool{}, entering: map[types.ManagedObjectReference]bool{}}
}

func (m *Moves) is(set map[types.ManagedObjectReference]bool, ref types.ManagedObjectReference) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	_, found := set[ref]
	return found
}

func (m *Moves) put(set map[types.ManagedObjectReference]bool, ref types.ManagedObjectReference, value, in bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if in {
		set[ref] = value
	} else {
		delete(set, ref)
	}
}

// HostSystem is the simulator's host with our methods in front.
type HostSystem struct {
	*simulator.HostSystem
	lab *Lab
}

func (l *Lab) hostEvent(sim *simulator.Context, h *simulator.HostSystem) types.HostEvent {
	arg := l.hostArgument(h)
	dc := &types.DatacenterEventArgument{EntityEventArgument: types.EntityEventArgument{Name: l.dc.Name}, Datacenter: l.dc.Self}
	e := types.HostEvent{Event: types.Event{Host: &arg, Datacenter: dc}}
	if cr, _ := computeOf(sim, h.Self); cr != nil {
		e.ComputeResource = &types.ComputeResourceEventArgument{EntityEventArgument: types.EntityEventArgument{Name: cr.Name},
			ComputeResource: cr.Self}
	}
	return e
}

// hostState changes a host's runtime where clients that wait for updates see it; summary.runtime is the same object.
func hostState(sim *simulator.Context, h *simulator.HostSystem, status types.ManagedEntityStatus, values map[string]types.AnyType) {
	var changes []types.PropertyChange
	for _, name := range []string{"connectionState", "powerState", "inMaintenanceMode", "bootTime"} {
		if v, ok := values[name]; ok {
			changes = append(changes, types.PropertyChange{Name: "runtime." + name, Val: v}, types.PropertyChange{Name: "summary.runtime." + name,
				Val: v})
		}
	}
	if status != "" {
		changes = append(changes, types.PropertyChange{Name: "overallStatus", Val: status}, types.PropertyChange{Name: "summary.overallStatus",
			Val: status})
	}
	sim.WithLock(h, func() { sim.Update(h, changes) })
}

func (l *Lab) vmsOn(sim *simulator.Context, h *simulator.HostSystem) (vms []*simulator.VirtualMachine) {
	var refs []types.ManagedObjectReference
	sim.WithLock(h, func() { refs = slices.Clone(h.Vm) })
	for _, ref := range refs {
		if vm, ok := sim.Map.Get(ref).(*simulator.VirtualMachine); ok {
			vms = append(vms, vm)
		}
	}
	return vms
}

// lose makes vCenter lose a host. References: HostSystemConnectionState: notResponding ("VirtualCenter is not receiving heartbeats from the
// server"), disconnected ("the user has explicitly taken the host down"); HostSystemPowerState.unknown ("if the host is disconnected, or
// notResponding, we can not possibly have knowledge of its power state"); VirtualMachineConnectionState.disconnected; a VM's powerState stays
// what it was last known to be.
func (l *Lab) lose(sim *simulator.Context, h *simulator.HostSystem, state types.HostSystemConnectionState, event types.BaseEvent) {
	hostState(sim, h, types.ManagedEntityStatusRed, map[string]types.AnyType{"connectionState": state,
		"powerState": types.HostSystemPowerStateUnknown})
	l.post(sim, event)
	for _, vm := range l.vmsOn(sim, h) {
		sim.WithLock(vm, func() {
			if vm.Runtime.ConnectionState == types.VirtualMachineConnectionStateDisconnected {
				return
			}
			sim.Update(vm, append(connection(types.VirtualMachineConnectionStateDisconnected),
				types.PropertyChange{Name: "guestHeartbeatStatus", Val: types.ManagedEntityStatusGray},
				types.PropertyChange{Name: "summary.quickStats.guestHeartbeatStatus", Val: types.ManagedEntityStatusGray}))
			l.post(sim, &types.VmDisconnectedEvent{VmEvent: l.vmEvent(vm)})
		})
	}
	l.reachable(sim)
}

func connection(state types.VirtualMachineConnectionState) []types.PropertyChange {
	return []types.PropertyChange{{Name: "runtime.connectionState", Val: state}, {Name: "summary.runtime.connectionState", Val: state}}
}

// reachable computes which datastores vCenter can reach. Reference: DatastoreSummary.accessible ("the connectivity status of this datastore.
// If this is set to false, meaning the datastore is not accessible").
func (l *Lab) reachable(sim *simulator.Context) {
	for _, s := range l.datastores {
		ds, ok := sim.Map.Get(s.Ref).(*simulator.Datastore)
		if !ok {
			continue
		}
		some := false
		mounts := slices.Clone(ds.Host)
		for i, m := range mounts {
			h, ok := sim.Map.Get(m.Key).(*simulator.HostSystem)
			up := ok && h.Runtime.ConnectionState == types.HostSystemConnectionStateConnected
			mounts[i].MountInfo.Accessible = types.NewBool(up)
			some = some || up
		}
		sim.WithLock(ds, func() {
			if ds.Summary.Accessible != some {
				sim.Update(ds, []types.PropertyChange{{Name: "summary.accessible", Val: some}})
			}
			sim.Update(ds, []types.PropertyChange{{Name: "host", Val: mounts}})
		})
	}
}

// die: POST /host/die?host=&vms=. vms is die (they are gone and their locks too) or run (they go on, and hold their files, where
// vCenter cannot see them). A host that is dead already can be killed once more: as fencing does to VMs that run on unseen.
func (l *Lab) die(name, vms string) error {
	h, err := l.hostNamed(name)
	if err != nil {
		return err
	}
	if vms != "die" && vms != "run" {
		return fmt.Errorf("vms=%q is neither die nor run", vms)
	}
	sim := l.context()
	again := l.moves.is(l.moves.dead, h.Self)
	l.moves.put(l.moves.dead, h.Self, vms == "run", true)
	if vms == "die" {
		for _, vm := range l.vmsOn(sim, h) {
			sim.WithLock(vm, func() {
				if vm.Runtime.PowerState == types.VirtualMachinePowerStatePoweredOn {
					l.moves.put(l.moves.stopped, vm.Self, true, true)
					l.locks.Set(vm.Self, nil)
					_, _ = l.guest(&vm.VirtualMachine)
				}
			})
		}
		l.locks.Drop("Unseen " + h.Self.Value)
	}
	for _, vm := range l.vmsOn(sim, h) {
		sim.WithLock(vm, func() { l.writeVMX(sim, vm) })
	}
	if !again {
		l.lose(sim, h, types.HostSystemConnectionStateNotResponding, &types.HostConnectionLostEvent{HostEvent: l.hostEvent(sim, h)})
	}
	if vms == "die" {
		l.protect(sim, h)
	}
	return nil
}

// back: POST /host/back?host=: vCenter hears the host again. VMs that died are powered off; those that ran on are seen running; those that
// were unregistered meanwhile are no longer run there.
func (l *Lab) back(name string) error {
	h, err := l.hostNamed(name)
	if err != nil {
		return err
	}
	sim := l.context()
	if !l.moves.is(l.moves.dead, h.Self) {
		return fmt.Errorf("host %s is not dead", name)
	}
	l.moves.mu.Lock()
	ran := l.moves.dead[h.Self]
	l.moves.mu.Unlock()
	l.moves.put(l.moves.dead, h.Self, false, false)
	l.locks.Drop("Unseen " + h.Self.Value)
	values := map[string]types.AnyType{}
	if !ran {
		values["bootTime"] = time.Now()
	}
	l.found(sim, h, values)
	return nil
}

// found is the opposite of lose.
func (l *Lab) found(sim *simulator.Context, h *simulator.HostSystem, values map[string]types.AnyType) {
	values["connectionState"], values["powerState"] = types.HostSystemConnectionStateConnected, types.HostSystemPowerStatePoweredOn
	hostState(sim, h, types.ManagedEntityStatusGreen, values)
	l.post(sim, &types.HostConnectedEvent{HostEvent: l.hostEvent(sim, h)})
	for _, vm := range l.vmsOn(sim, h) {
		sim.WithLock(vm, func() {
			changes := connection(types.VirtualMachineConnectionStateConnected)
			if l.moves.is(l.moves.stopped, vm.Self) {
				l.moves.put(l.moves.stopped, vm.Self, false, false)
				off := types.VirtualMachinePowerStatePoweredOff
				changes = append(changes, types.PropertyChange{Name: "runtime.powerState", Val: off},
					types.PropertyChange{Name: "summary.runtime.powerState", Val: off})
			}
			sim.Update(vm, changes)
			if state := l.stateOf(vm.Self); state != nil {
				sim.Update(vm, l.guestChanges(&vm.VirtualMachine, &state.Model))
			}
			l.post(sim, &types.VmConnectedEvent{VmEvent: l.vmEvent(vm)})
		})
	}
	l.reachable(sim)
}

func (l *Lab) hostNamed(name string) (*simulator.HostSystem, error) {
	sim := l.context()
	for _, e := range sim.Map.All("HostSystem") {
		if h := e.(*simulator.HostSystem); h.Name == name || h.Self.Value == name {
			return h, nil
		}
	}
	return nil, fmt.Errorf("no host %q", name)
}

// available says why a host cannot take a VM. References: HostNotConnected ("if a method needs to communicate with a host that has been
// disconnected"), InvalidHostState ("the host has an invalid state"), HostRuntimeInfo.inMaintenanceMode ("no virtual machines can be
// powered on, and no provisioning operations can be performed on the host").
func (l *Lab) available(h *simulator.HostSystem) types.BaseMethodFault {
	if h.Runtime.ConnectionState != types.HostSystemConnectionStateConnected {
		return &types.HostNotConnected{}
	}
	if h.Runtime.InMaintenanceMode || l.moves.is(l.moves.entering, h.Self) {
		ref := h.Self
		return &types.InvalidHostState{Host: &ref}
	}
	return nil
}

func (h *HostSystem) connected() types.BaseMethodFault {
	if h.Runtime.ConnectionState != types.HostSystemConnectionStateConnected {
		return &types.HostNotConnected{}
	}
	return nil
}

// EnterMaintenanceModeTask: reference: HostSystem.EnterMaintenanceMode_Task ("the task completes once there are no running virtual
// machines on the host and no provisioning operations in progress on the host"; "while this task is running … no virtual machines can be
// powered on"; "the operation is cancellable"), timeout ("if the timeout is less than or equal to zero, there is no timeout"); faults
// Timedout, InvalidState "if the host is already in maintenance mode". DRS does not move anything by itself here.
func (h *HostSystem) EnterMaintenanceModeTask(ctx *simulator.Context, req *types.EnterMaintenanceMode_Task) soap.HasFault {
	l := h.lab
	ref := l.taskOn(ctx, h.Self, h.Name, "EnterMaintenanceModeTask", "HostSystem.enterMaintenanceMode",
		func(sim *simulator.Context, t *simulator.Task) (types.AnyType, types.BaseMethodFault) {
			if fault := h.connected(); fault != nil {
				return nil, fault
			}
			if h.Runtime.InMaintenanceMode || l.moves.is(l.moves.entering, h.Self) {
				return nil, &types.InvalidState{}
			}
			l.moves.put(l.moves.entering, h.Self, true, true)
			defer l.moves.put(l.moves.entering, h.Self, false, false)
			stop := l.cancelable(sim, t)
			defer l.settled(sim, t)
			l.post(sim, &types.EnteringMaintenanceModeEvent{HostEvent: l.hostEvent(sim, h.HostSystem)})
			progress(sim, t, 2)
			for start := time.Now(); l.busy(sim, h.HostSystem); time.Sleep(20 * time.Millisecond) {
				switch fault := h.connected(); {
				case fault != nil:
					return nil, fault
				case stop.Load():
					l.post(sim, &types.CanceledHostOperationEvent{HostEvent: l.hostEvent(sim, h.HostSystem)})
					return nil, &types.RequestCanceled{}
				case req.Timeout > 0 && time.Since(start) > time.Duration(req.Timeout)*time.Second:
					return nil, &types.Timedout{}
				}
			}
			hostState(sim, h.HostSystem, "", map[string]types.AnyType{"inMaintenanceMode": true})
			l.post(sim, &types.EnteredMaintenanceModeEvent{HostEvent: l.hostEvent(sim, h.HostSystem)})
			return nil, nil
		})
	return &methods.EnterMaintenanceMode_TaskBody{Res: &types.EnterMaintenanceMode_TaskResponse{Returnval: ref}}
}

// busy: VMs run there, or are on their way.
func (l *Lab) busy(sim *simulator.Context, h *simulator.HostSystem) bool {
	for _, vm := range l.vmsOn(sim, h) {
		if vm.Runtime.PowerState == types.VirtualMachinePowerStatePoweredOn {
			return true
		}
		if g := l.guestOf(vm.Self); g != nil && g.moving.Load() {
			return true
		}
	}
	return false
}

// ExitMaintenanceModeTask: reference: HostSystem.ExitMaintenanceMode_Task; fault InvalidState "if the host is not in maintenance mode".
func (h *HostSystem) ExitMaintenanceModeTask(ctx *simulator.Context, _ *types.ExitMaintenanceMode_Task) soap.HasFault {
	l := h.lab
	ref := l.taskOn(ctx, h.Self, h.Name, "ExitMaintenanceModeTask", "HostSystem.exitMaintenanceMode",
		func(sim *simulator.Context, _ *simulator.Task) (types.AnyType, types.BaseMethodFault) {
			if fault := h.connected(); fault != nil {
				return nil, fault
			}
			if !h.Runtime.InMaintenanceMode {
				return nil, &types.InvalidState{}
			}
			hostState(sim, h.HostSystem, "", map[string]types.AnyType{"inMaintenanceMode": false})
			l.post(sim, &types.ExitMaintenanceModeEvent{HostEvent: l.hostEvent(sim, h.HostSystem)})
			return nil, nil
		})
	return &methods.ExitMaintenanceMode_TaskBody{Res: &types.ExitMaintenanceMode_TaskResponse{Returnval: ref}}
}

// DisconnectHostTask: reference: HostSystem.DisconnectHost_Task ("disconnects from a host and instructs the server to stop sending
// heartbeats"); its VMs go on.
func (h *HostSystem) DisconnectHostTask(ctx *simulator.Context, _ *types.DisconnectHost_Task) soap.HasFault {
	l := h.lab
	ref := l.taskOn(ctx, h.Self, h.Name, "DisconnectHostTask", "HostSystem.disconnect", func(sim *simulator.Context,
		_ *simulator.Task) (types.AnyType, types.BaseMethodFault) {
		if h.Runtime.ConnectionState == types.HostSystemConnectionStateDisconnected {
			return nil, &types.InvalidState{}
		}
		l.lose(sim, h.HostSystem, types.HostSystemConnectionStateDisconnected, &types.HostDisconnectedEvent{
			HostEvent: l.hostEvent(sim, h.HostSystem), Reason: string(types.HostDisconnectedEventReasonCodeUserRequest)})
		return nil, nil
	})
	return &methods.DisconnectHost_TaskBody{Res: &types.DisconnectHost_TaskResponse{Returnval: ref}}
}

// ReconnectHostTask: reference: HostSystem.ReconnectHost_Task; faults InvalidState "if host is not in the disconnected state",
// HostConnectFault "if an error occurred when attempting to reconnect with a host".
func (h *HostSystem) ReconnectHostTask(ctx *simulator.Context, _ *types.ReconnectHost_Task) soap.HasFault {
	l := h.lab
	ref := l.taskOn(ctx, h.Self, h.Name, "ReconnectHostTask", "HostSystem.reconnect", func(sim *simulator.Context,
		_ *simulator.Task) (types.AnyType, types.BaseMethodFault) {
		switch {
		case h.Runtime.ConnectionState == types.HostSystemConnectionStateConnected:
			return nil, &types.InvalidState{}
		case l.moves.is(l.moves.dead, h.Self):
			return nil, &types.NoHost{HostConnectFault: types.HostConnectFault{}, Name: h.Name}
		}
		l.found(sim, h.HostSystem, map[string]types.AnyType{})
		return nil, nil
	})
	return &methods.ReconnectHost_TaskBody{Res: &types.ReconnectHost_TaskResponse{Returnval: ref}}
}

// ShutdownHostTask: reference: HostSystem.ShutdownHost_Task ("force: flag to specify whether or not the host should be shut down
// regardless of whether it is in maintenance mode. If true, the host is shut down, even if there are virtual machines running"); fault
// InvalidState.
func (h *HostSystem) ShutdownHostTask(ctx *simulator.Context, req *types.ShutdownHost_Task) soap.HasFault {
	l := h.lab
	ref := l.taskOn(ctx, h.Self, h.Name, "ShutdownHostTask", "HostSystem.shutdown", func(sim *simulator.Context,
		_ *simulator.Task) (types.AnyType, types.BaseMethodFault) {
		if fault := h.connected(); fault != nil {
			return nil, fault
		}
		if !req.Force && !h.Runtime.InMaintenanceMode {
			return nil, &types.InvalidState{}
		}
		l.post(sim, &types.HostShutdownEvent{HostEvent: l.hostEvent(sim, h.HostSystem), Reason: "user"})
		_ = l.die(h.Name, "die")
		return nil, nil
	})
	return &methods.ShutdownHost_TaskBody{Res: &types.ShutdownHost_TaskResponse{Returnval: ref}}
}

// RebootHostTask: reference: HostSystem.RebootHost_Task; the host is back after the switch host_boot_seconds (1).
func (h *HostSystem) RebootHostTask(ctx *simulator.Context, req *types.RebootHost_Task) soap.HasFault {
	l := h.lab
	ref := l.taskOn(ctx, h.Self, h.Name, "RebootHostTask", "HostSystem.reboot", func(sim *simulator.Context, _ *simulator.Task) (types.AnyType,
		types.BaseMethodFault) {
		if fault := h.connected(); fault != nil {
			return nil, fault
		}
		if !req.Force && !h.Runtime.InMaintenanceMode {
			return nil, &types.InvalidState{}
		}
		_ = l.die(h.Name, "die")
		time.AfterFunc(time.Duration(l.switches.Number("host_boot_seconds", "", 1)*float64(time.Second)), func() { _ = l.back(h.Name) })
		return nil, nil
	})
	return &methods.RebootHost_TaskBody{Res: &types.RebootHost_TaskResponse{Returnval: ref}}
}

// DestroyTask: reference: HostSystem.Destroy_Task: a host is removed from the inventory together with its VMs, which stay on their
// datastores; a host of a cluster must be disconnected or in maintenance mode (InvalidState).
func (h *HostSystem) DestroyTask(ctx *simulator.Context, _ *types.Destroy_Task) soap.HasFault {
	l := h.lab
	ref := l.taskOn(ctx, h.Self, h.Name, "DestroyTask", "ManagedEntity.destroy", func(sim *simulator.Context,
		_ *simulator.Task) (types.AnyType, types.BaseMethodFault) {
		if h.Runtime.ConnectionState == types.HostSystemConnectionStateConnected && !h.Runtime.InMaintenanceMode {
			return nil, &types.InvalidState{}
		}
		for _, vm := range l.vmsOn(sim, h.HostSystem) {
			var fault types.BaseMethodFault
			sim.WithLock(vm, func() { fault = l.unregister(sim, vm, true) })
			if fault != nil {
				return nil, fault
			}
		}
		parent := *h.Parent
		if cr, cluster := computeOf(sim, h.Self); cluster != nil {
			relist(sim, cluster, "host", &cr.Host, h.Self, false)
		} else if folder, ok := sim.Map.Get(*cr.Parent).(*simulator.Folder); ok {
			relist(sim, folder, "childEntity", &folder.ChildEntity, parent, false)
			sim.Map.Remove(sim, parent)
		}
		l.post(sim, &types.HostRemovedEvent{HostEvent: l.hostEvent(sim, h.HostSystem)})
		sim.Map.Remove(sim, h.Self)
		return nil, nil
	})
	return &methods.Destroy_TaskBody{Res: &types.Destroy_TaskResponse{Returnval: ref}}
}

func (l *Lab) writeVMX(sim *simulator.Context, vm *simulator.VirtualMachine) {
	if file := l.localPath(vm.Config.Files.VmPathName); file != "" && strings.HasSuffix(file, ".vmx") {
		_ = os.WriteFile(file, []byte(l.vmxOf(sim, &vm.VirtualMachine)), 0o600)
	}
}

// guestOf is what belongs to a VM, where something was made of it already.
func (l *Lab) guestOf(ref types.ManagedObjectReference) *Guest {
	l.guestsMu.Lock()
	defer l.guestsMu.Unlock()
	return l.guests[ref]
}
