// Copyright (c) 2026, ferry.vmware contributors
// GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
// SPDX-License-Identifier: GPL-3.0-or-later

package main

import (
	"slices"
	"time"

	"github.com/vmware/govmomi/simulator"
	"github.com/vmware/govmomi/vim25/methods"
	"github.com/vmware/govmomi/vim25/mo"
	"github.com/vmware/govmomi/vim25/soap"
	"github.com/vmware/govmomi/vim25/types"
)

// PowerOnVMTask: reference: VirtualMachine.PowerOnVM_Task: faults InvalidPowerState, FileFault "if there is a problem accessing the
// virtual machine on the filesystem", InsufficientResourcesFault, VmConfigFault, HostNotConnected. Where another host holds the files the
// task ends with GenericVmConfigFault "Failed to lock the file" or FileLocked (VMware KB 10051): switch lock_fault.
func (v *VirtualMachine) PowerOnVMTask(ctx *simulator.Context, req *types.PowerOnVM_Task) soap.HasFault {
	if v.Config.Template {
		return v.VirtualMachine.PowerOnVMTask(ctx, req)
	}
	l, vm := v.lab, v.VirtualMachine
	if g, err := l.guest(&vm.VirtualMachine); err == nil && g.exported() { // TaskInProgress: "if the virtual machine is busy"
		fault := &types.TaskInProgress{Task: types.ManagedObjectReference{Type: "Task", Value: "task-0"}}
		return &methods.PowerOnVM_TaskBody{Fault_: simulator.Fault(faultText(fault), fault)}
	}
	ref := l.taskOn(ctx, v.Self, v.Name, "PowerOnVMTask", "VirtualMachine.powerOn", func(sim *simulator.Context,
		t *simulator.Task) (types.AnyType, types.BaseMethodFault) {
		var fault types.BaseMethodFault
		sim.WithLock(vm, func() { fault = l.cannotStart(sim, vm) })
		if fault != nil {
			return nil, fault
		}
		pause(sim, t, l.switches.Number("power_on_seconds", vm.Name, 0), 1, 95)
		sim.WithLock(vm, func() {
			if fault = l.cannotStart(sim, vm); fault == nil {
				l.start(sim, vm)
			}
		})
		return nil, fault
	})
	return &methods.PowerOnVM_TaskBody{Res: &types.PowerOnVM_TaskResponse{Returnval: ref}}
}

// Datacenter is the simulator's, with a PowerOnMultiVM that looks at the same things as PowerOnVM.
type Datacenter struct {
	*simulator.Datacenter
	lab *Lab
}

// PowerOnMultiVMTask: reference: Datacenter.PowerOnMultiVM_Task: the result has a task for each VM (ClusterPowerOnVmResult.attempted).
func (d *Datacenter) PowerOnMultiVMTask(ctx *simulator.Context, req *types.PowerOnMultiVM_Task) soap.HasFault {
	l := d.lab
	ref := l.taskOn(ctx, d.Self, d.Name, "PowerOnMultiVMTask", "Datacenter.powerOnVm",
		func(sim *simulator.Context, _ *simulator.Task) (types.AnyType, types.BaseMethodFault) {
			result := types.ClusterPowerOnVmResult{}
			for _, of := range req.Vm {
				vm, ok := sim.Map.Get(of).(*simulator.VirtualMachine)
				if !ok {
					return nil, &types.ManagedObjectNotFound{Obj: of}
				}
				own := l.context() // one for each task
				var body *methods.PowerOnVM_TaskBody
				own.WithLock(vm, func() {
					one := &VirtualMachine{VirtualMachine: vm, lab: l}
					body, _ = one.PowerOnVMTask(own, &types.PowerOnVM_Task{This: of}).(*methods.PowerOnVM_TaskBody)
				})
				if body.Res == nil {
					fault, _ := body.Fault_.VimFault().(types.BaseMethodFault)
					result.NotAttempted = append(result.NotAttempted, types.ClusterNotAttemptedVmInfo{Vm: of, Fault: localized(fault)})
					continue
				}
				result.Attempted = append(result.Attempted, types.ClusterAttemptedVmInfo{Vm: of, Task: &body.Res.Returnval})
			}
			return result, nil
		})
	return &methods.PowerOnMultiVM_TaskBody{Res: &types.PowerOnMultiVM_TaskResponse{Returnval: ref}}
}

func (l *Lab) cannotStart(sim *simulator.Context, vm *simulator.VirtualMachine) types.BaseMethodFault {
	on := types.VirtualMachinePowerStatePoweredOn
	host, ok := sim.Map.Get(*vm.Runtime.Host).(*simulator.HostSystem)
	switch {
	case vm.Runtime.PowerState == on:
		return &types.InvalidPowerState{RequestedState: on, ExistingState: on}
	case !ok || host.Runtime.ConnectionState != types.HostSystemConnectionStateConnected:
		return &types.HostNotConnected{}
	case l.available(host) != nil:
		return &types.InvalidState{}
	}
	if f := l.faults.Take("power_on_fail", vm.Name); f != nil {
		return faultOr(f.Fault, &types.GenericVmConfigFault{Reason: "Failed to start the virtual machine."})
	}
	if file, locked := l.lockedBy(&vm.VirtualMachine); locked {
		if l.switches.Get("lock_fault", vm.Name, 0) == "FileLocked" {
			return &types.FileLocked{FileFault: types.FileFault{File: file}}
		}
		return cannotLock(file)
	}
	for _, ref := range vm.Datastore {
		if s := l.storeOf(ref); s != nil && !slices.Contains(host.Datastore, ref) {
			return &types.InvalidDatastore{Datastore: &ref, Name: s.Model.Name}
		}
	}
	if fault := l.noMemory(sim, vm, host); fault != nil {
		return fault
	}
	return l.mustRules(sim, vm.Self, vm.Name, host)
}

func reservedMB(vm *mo.VirtualMachine) int64 {
	if a := vm.Config.MemoryAllocation; a != nil && a.Reservation != nil {
		return *a.Reservation
	}
	return 0
}

// noMemory: reservations of memory must fit into the host. Reference: InsufficientMemoryResourcesFault (unreserved, requested; bytes).
func (l *Lab) noMemory(sim *simulator.Context, vm *simulator.VirtualMachine, host *simulator.HostSystem) types.BaseMethodFault {
	wanted := reservedMB(&vm.VirtualMachine) << 20
	if wanted == 0 || host.Summary.Hardware == nil {
		return nil
	}
	left := host.Summary.Hardware.MemorySize
	for _, ref := range host.Vm {
		other, ok := sim.Map.Get(ref).(*simulator.VirtualMachine)
		if ok && other != vm && other.Runtime.PowerState == types.VirtualMachinePowerStatePoweredOn {
			left -= reservedMB(&other.VirtualMachine) << 20
		}
	}
	if wanted > left {
		return &types.InsufficientMemoryResourcesFault{Unreserved: max(left, 0), Requested: wanted}
	}
	return nil
}

// start is called with the VM's lock held.
func (l *Lab) start(sim *simulator.Context, vm *simulator.VirtualMachine) {
	event := l.vmEvent(vm)
	l.post(sim, &types.VmStartingEvent{VmEvent: event})
	devices := make([]types.BaseVirtualDevice, len(vm.Config.Hardware.Device))
	for i, d := range vm.Config.Hardware.Device {
		devices[i] = d
		if c := d.GetVirtualDevice().Connectable; c != nil {
			own, connected := ownDevice(d), *c
			connected.Connected = c.StartConnected
			own.GetVirtualDevice().Connectable = &connected
			devices[i] = own
		}
	}
	on, needs := types.VirtualMachinePowerStatePoweredOn, ""
	if host, ok := sim.Map.Get(*vm.Runtime.Host).(*simulator.HostSystem); ok {
		needs = baseline(host)
	}
	sim.Update(vm, []types.PropertyChange{
		{Name: "runtime.powerState", Val: on}, {Name: "summary.runtime.powerState", Val: on}, {Name: "summary.runtime.bootTime", Val: time.Now()},
		{Name: "runtime.minRequiredEVCModeKey", Val: needs}, {Name: "summary.runtime.minRequiredEVCModeKey", Val: needs},
		{Name: "config.hardware.device", Val: devices},
	})
	l.post(sim, &types.VmPoweredOnEvent{VmEvent: event})
}

// baseline is what a VM that starts on a host may see of its CPU. References: HostListSummary.currentEVCModeKey, maxEVCModeKey;
// VirtualMachineRuntimeInfo.minRequiredEVCModeKey ("for a powered-on or suspended virtual machine … the minimum EVC mode required").
func baseline(h *simulator.HostSystem) string {
	if h.Summary.CurrentEVCModeKey != "" {
		return h.Summary.CurrentEVCModeKey
	}
	return h.Summary.MaxEVCModeKey
}
