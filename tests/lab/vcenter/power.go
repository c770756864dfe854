// Copyright (c) 2026, ferry.vmware contributors
// GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
// SPDX-License-Identifier: GPL-3.0-or-later

package main

import (
	"strings"
	"time"

	"github.com/vmware/govmomi/simulator"
	"github.com/vmware/govmomi/vim25/methods"
	"github.com/vmware/govmomi/vim25/mo"
	"github.com/vmware/govmomi/vim25/soap"
	"github.com/vmware/govmomi/vim25/types"
)

// VirtualMachine is the simulator's VM with our methods in front.
type VirtualMachine struct {
	*simulator.VirtualMachine
	lab *Lab
}

// guestChanges are the properties of GuestInfo and its summary that follow from power state and VMware Tools. References:
// vSphere Web Services API, GuestInfo (guestState, toolsRunningStatus, toolsVersionStatus2, net, ipAddress) and
// VirtualMachineGuestSummary.
func (l *Lab) guestChanges(vm *mo.VirtualMachine, v *VM) []types.PropertyChange {
	on := vm.Runtime.PowerState == types.VirtualMachinePowerStatePoweredOn
	installed := v.Tools != "not_installed"
	running := on && (v.Tools == "running" || v.Tools == "hangs")
	status, version := types.VirtualMachineToolsStatusToolsNotInstalled, types.VirtualMachineToolsVersionStatusGuestToolsNotInstalled
	runs, state, heartbeat := types.VirtualMachineToolsRunningStatusGuestToolsNotRunning, types.VirtualMachineGuestStateNotRunning, types.ManagedEntityStatusGray
	number := "0"
	if installed {
		status, version, number = types.VirtualMachineToolsStatusToolsNotRunning, types.VirtualMachineToolsVersionStatusGuestToolsUnmanaged, "12352"
	}
	var hostname, ip string
	var nics []types.GuestNicInfo
	if running {
		status, runs, state = types.VirtualMachineToolsStatusToolsOk, types.VirtualMachineToolsRunningStatusGuestToolsRunning, types.VirtualMachineGuestStateRunning
		heartbeat = types.ManagedEntityStatusGreen
		hostname = v.HostName
		for i, n := range v.NICs {
			nic := types.GuestNicInfo{Network: n.Network, MacAddress: n.MAC, Connected: true, DeviceConfigId: int32(4000 + i)}
			if n.IP != "" {
				nic.IpAddress = []string{n.IP}
				nic.IpConfig = &types.NetIpConfigInfo{IpAddress: []types.NetIpConfigInfoIpAddress{{IpAddress: n.IP, PrefixLength: 24, State: string(types.NetIpConfigInfoIpAddressStatusPreferred)}}}
				if ip == "" {
					ip = n.IP
				}
			}
			nics = append(nics, nic)
		}
	}
	guest := types.GuestInfo{
		ToolsStatus: status, ToolsVersionStatus: string(version), ToolsVersionStatus2: string(version), ToolsRunningStatus: string(runs), ToolsVersion: number,
		HostName: hostname, IpAddress: ip, Net: nics, GuestState: string(state), GuestOperationsReady: &running, InteractiveGuestOperationsReady: types.NewBool(false),
		GuestStateChangeSupported: &running, AppState: "none", AppHeartbeatStatus: "appStatusGray",
	}
	if running {
		v.Traits.tell(&guest)
	}
	summary := types.VirtualMachineGuestSummary{ToolsStatus: status, ToolsVersionStatus: string(version), ToolsVersionStatus2: string(version), ToolsRunningStatus: string(runs), HostName: hostname, IpAddress: ip}
	if running {
		guest.GuestId, guest.GuestFullName, guest.GuestFamily = v.GuestID, vm.Config.GuestFullName, guestFamily(v.GuestID)
		summary.GuestId, summary.GuestFullName = guest.GuestId, guest.GuestFullName
	}
	return []types.PropertyChange{
		{Name: "guest", Val: guest}, {Name: "summary.guest", Val: summary},
		{Name: "guestHeartbeatStatus", Val: heartbeat}, {Name: "summary.quickStats.guestHeartbeatStatus", Val: heartbeat},
	}
}

func guestFamily(id string) string {
	if strings.HasPrefix(id, "win") {
		return string(types.VirtualMachineGuestOsFamilyWindowsGuest)
	}
	return string(types.VirtualMachineGuestOsFamilyLinuxGuest)
}

// powerChanged is called with the VM's lock held.
func (l *Lab) powerChanged(ctx *simulator.Context, vm *mo.VirtualMachine) {
	state := l.stateOf(vm.Self)
	if state == nil {
		return // made by a client: the simulator's guest will do
	}
	changes := l.guestChanges(vm, &state.Model)
	if vm.Runtime.PowerState == types.VirtualMachinePowerStatePoweredOn {
		now := time.Now()
		changes = append(changes, types.PropertyChange{Name: "runtime.bootTime", Val: now})
	} else {
		changes = append(changes, types.PropertyChange{Name: "runtime.bootTime"}, types.PropertyChange{Name: "summary.runtime.bootTime"})
	}
	ctx.Update(vm, changes)
}

// ShutdownGuest answers at once; the guest needs its time. References: vSphere Web Services API,
// VirtualMachine.ShutdownGuest: "Issues a command to the guest operating system asking it to perform a clean shutdown of all
// services. Returns immediately and does not wait for the guest operating system to complete the operation"; faults
// InvalidPowerState and ToolsUnavailable ("if VMware Tools is not running").
func (v *VirtualMachine) ShutdownGuest(ctx *simulator.Context, _ *types.ShutdownGuest) soap.HasFault {
	body := &methods.ShutdownGuestBody{}
	if v.Runtime.PowerState != types.VirtualMachinePowerStatePoweredOn {
		body.Fault_ = simulator.Fault("The attempted operation cannot be performed in the current state (Powered off).", &types.InvalidPowerState{
			RequestedState: types.VirtualMachinePowerStatePoweredOn, ExistingState: v.Runtime.PowerState})
		return body
	}
	if v.Guest == nil || v.Guest.ToolsRunningStatus != string(types.VirtualMachineToolsRunningStatusGuestToolsRunning) {
		body.Fault_ = simulator.Fault("Cannot complete operation because VMware Tools is not running in this virtual machine.", &types.ToolsUnavailable{})
		return body
	}
	state := v.lab.stateOf(v.Self)
	if state == nil {
		return v.VirtualMachine.ShutdownGuest(ctx, &types.ShutdownGuest{This: v.Self})
	}
	body.Res = &types.ShutdownGuestResponse{}
	if state.Model.Tools == "hangs" || v.lab.faults.Take("shutdown_hang", state.Model.Name) != nil {
		return body
	}
	started := v.Runtime.BootTime
	time.AfterFunc(time.Duration(state.Model.ShutdownSeconds*float64(time.Second)), func() { v.lab.guestIsDown(v.VirtualMachine, started) })
	return body
}

// guestIsDown powers the VM off as its guest does, unless it was powered off or started anew in between.
func (l *Lab) guestIsDown(vm *simulator.VirtualMachine, started *time.Time) {
	ctx := l.context()
	ctx.WithLock(vm, func() {
		if vm.Runtime.PowerState != types.VirtualMachinePowerStatePoweredOn || vm.Runtime.BootTime != started {
			return
		}
		event := l.vmEvent(vm)
		l.post(ctx, &types.VmGuestShutdownEvent{VmEvent: event})
		devices := make([]types.BaseVirtualDevice, len(vm.Config.Hardware.Device))
		copy(devices, vm.Config.Hardware.Device)
		for _, d := range devices {
			if c := d.GetVirtualDevice().Connectable; c != nil {
				c.Connected = false
			}
		}
		ctx.Update(vm, []types.PropertyChange{
			{Name: "runtime.powerState", Val: types.VirtualMachinePowerStatePoweredOff},
			{Name: "summary.runtime.powerState", Val: types.VirtualMachinePowerStatePoweredOff},
			{Name: "config.hardware.device", Val: devices},
		})
		l.post(ctx, &types.VmPoweredOffEvent{VmEvent: event})
	})
}

func (l *Lab) vmEvent(vm *simulator.VirtualMachine) types.VmEvent {
	event := types.Event{Vm: &types.VmEventArgument{EntityEventArgument: types.EntityEventArgument{Name: vm.Name}, Vm: vm.Self}}
	event.Datacenter = &types.DatacenterEventArgument{EntityEventArgument: types.EntityEventArgument{Name: l.dc.Name}, Datacenter: l.dc.Self}
	if vm.Runtime.Host != nil {
		event.Host = &types.HostEventArgument{EntityEventArgument: types.EntityEventArgument{Name: l.nameOf(*vm.Runtime.Host)}, Host: *vm.Runtime.Host}
	}
	return types.VmEvent{Event: event}
}

func (l *Lab) post(ctx *simulator.Context, event types.BaseEvent) {
	manager := ctx.Map.EventManager()
	ctx.WithLock(manager, func() { manager.PostEvent(ctx, &types.PostEvent{EventToPost: event}) })
}
