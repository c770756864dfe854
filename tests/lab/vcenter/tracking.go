// Copyright (c) 2026, ferry.vmware contributors
// GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
// SPDX-License-Identifier: GPL-3.0-or-later

package main

import (
	"fmt"
	"slices"
	"strings"

	"github.com/vmware/govmomi/simulator"
	"github.com/vmware/govmomi/vim25/methods"
	"github.com/vmware/govmomi/vim25/mo"
	"github.com/vmware/govmomi/vim25/soap"
	"github.com/vmware/govmomi/vim25/types"
)

const trackKey = ".ctkEnabled"

// stun is the moment when the VM opens its disks anew: what was configured of change tracking takes effect. Reference: VDDK
// Programming Guide, "Enable Changed Block Tracking": "for CBT to take effect, the VM must go through a stun-unstun cycle: power
// on, resume after suspend, migrate, or snapshot create/delete/revert"; "CBT is not available for physical compatibility mode
// RDM, or for virtual disks attached in independent mode". The caller holds the VM's lock.
func (l *Lab) stun(vm *simulator.VirtualMachine, g *Guest) {
	g.mu.Lock()
	defer g.mu.Unlock()
	wanted := vm.Config.ChangeTrackingEnabled != nil && *vm.Config.ChangeTrackingEnabled
	for _, v := range g.disks {
		switch want := wanted && !v.off && !v.independent; {
		case want && v.track == nil:
			store := l.datastoreOf(v.root)
			v.track = newTrack(v, l.eager(&vm.VirtualMachine, v.key), store != nil && store.Model.Type == "VMFS", g.late)
		case !want:
			v.track = nil
		}
	}
}

func (l *Lab) eager(vm *mo.VirtualMachine, key int32) bool {
	for _, d := range flatDisks(vm.Config.Hardware.Device) {
		b := d.Backing.(*types.VirtualDiskFlatVer2BackingInfo)
		if d.Key == key && b.EagerlyScrub != nil && *b.EagerlyScrub {
			return true
		}
	}
	return false
}

// extraConfig has scsi0:0.ctkEnabled and the like as they are now. Reference: VMware KB 1020128 ("ctkEnabled", "scsix:x.ctkEnabled").
// The caller holds mu.
func (g *Guest) extraConfig(vm *mo.VirtualMachine) (options []types.BaseOptionValue, changed bool) {
	value := map[string]string{}
	for _, v := range g.disks {
		switch {
		case v.track != nil:
			value[v.address+trackKey] = "TRUE"
		case v.off:
			value[v.address+trackKey] = "FALSE"
		}
	}
	for _, o := range vm.Config.ExtraConfig {
		x := o.GetOptionValue()
		if _, disk, _ := strings.Cut(x.Key, ":"); !strings.HasSuffix(disk, trackKey) {
			options = append(options, o)
		} else if text, _ := x.Value.(string); value[x.Key] == text {
			options = append(options, o)
			delete(value, x.Key)
		} else {
			changed = true
		}
	}
	keys := make([]string, 0, len(value))
	for k := range value {
		keys = append(keys, k)
	}
	slices.Sort(keys)
	for _, k := range keys {
		options, changed = append(options, &types.OptionValue{Key: k, Value: value[k]}), true
	}
	return options, changed
}

// ReconfigVMTask is the simulator's, with what change tracking and the files of a disk need. Reference: VirtualMachine.ReconfigVM_Task,
// VirtualMachineConfigSpec.changeTrackingEnabled ("setting this to true only has effect once the VM's disks are opened anew").
func (v *VirtualMachine) ReconfigVMTask(ctx *simulator.Context, req *types.ReconfigVM_Task) soap.HasFault {
	spec := &req.Spec
	tracking := spec.ChangeTrackingEnabled != nil
	for _, o := range spec.ExtraConfig {
		tracking = tracking || strings.HasSuffix(o.GetOptionValue().Key, trackKey)
	}
	if !tracking && len(spec.DeviceChange) == 0 && !slices.ContainsFunc(v.Config.Hardware.Device, raw) {
		return v.VirtualMachine.ReconfigVMTask(ctx, req)
	}
	vm, l := v.VirtualMachine, v.lab
	body := &methods.ReconfigVM_TaskBody{}
	g, err := l.guest(&vm.VirtualMachine)
	if err != nil {
		body.Fault_ = simulator.Fault(err.Error(), &types.FileFault{File: err.Error()})
		return body
	}
	ref := l.task(ctx, vm, "ReconfigVMTask", func(sim *simulator.Context, _ *simulator.Task) (types.AnyType, types.BaseMethodFault) {
		if fault := l.cannotExtend(sim, vm, g, spec); fault != nil {
			return nil, fault
		}
		var inner *simulator.Task
		sim.WithLock(vm, func() {
			all := vm.Config.Hardware.Device // the simulator takes every disk for a flat one: raw mappings are hidden
			vm.Config.Hardware.Device = slices.DeleteFunc(slices.Clone(all), raw)
			res := vm.ReconfigVMTask(sim, req).(*methods.ReconfigVM_TaskBody)
			inner = sim.Map.Get(res.Res.Returnval).(*simulator.Task)
			inner.Wait()
			for _, d := range all {
				if raw(d) {
					vm.Config.Hardware.Device = append(vm.Config.Hardware.Device, d)
				}
			}
		})
		if inner.Info.Error != nil {
			return nil, inner.Info.Error.Fault
		}
		var fault types.BaseMethodFault
		sim.WithLock(vm, func() { fault = l.reconfigured(sim, vm, g, spec) })
		return nil, fault
	})
	body.Res = &types.ReconfigVM_TaskResponse{Returnval: ref}
	return body
}

// cannotExtend: reference: vSphere Virtual Machine Administration, "Change the Virtual Disk Configuration": a disk with snapshots
// cannot be expanded, none can be made smaller.
func (l *Lab) cannotExtend(sim *simulator.Context, vm *simulator.VirtualMachine, g *Guest, spec *types.VirtualMachineConfigSpec) (fault types.BaseMethodFault) {
	sim.WithLock(vm, func() {
		g.mu.Lock()
		defer g.mu.Unlock()
		for i, c := range spec.DeviceChange {
			change := c.GetVirtualDeviceConfigSpec()
			d, ok := change.Device.(*types.VirtualDisk)
			if !ok || change.Operation != types.VirtualDeviceConfigSpecOperationEdit || g.disks[d.Key] == nil {
				continue
			}
			size := max(d.CapacityInBytes, d.CapacityInKB*1024)
			old := g.disks[d.Key]
			if size != 0 && (size < old.capacity || size > old.capacity && len(old.layers) > 1) {
				fault = &types.InvalidDeviceOperation{InvalidDeviceSpec: types.InvalidDeviceSpec{DeviceIndex: int32(i)}}
			}
		}
	})
	return fault
}

// reconfigured follows a change of the configuration; the caller holds the VM's lock.
func (l *Lab) reconfigured(sim *simulator.Context, vm *simulator.VirtualMachine, g *Guest, spec *types.VirtualMachineConfigSpec) types.BaseMethodFault {
	if _, err := l.guest(&vm.VirtualMachine); err != nil {
		return &types.FileFault{File: err.Error()}
	}
	g.mu.Lock()
	if on := spec.ChangeTrackingEnabled; on != nil && *on {
		g.late = len(g.snaps) > 0
		for _, v := range g.disks {
			v.off = false
		}
	}
	for _, o := range spec.ExtraConfig {
		x := o.GetOptionValue()
		for _, v := range g.disks {
			if text, _ := x.Value.(string); x.Key == v.address+trackKey {
				v.off = strings.EqualFold(text, "false")
			}
		}
	}
	running := g.running
	for _, v := range g.disks {
		base := v.layers[0]
		file, ok := base.store.(*flat)
		if !ok || v.capacity == file.capacity {
			continue
		}
		if err := file.extend(v.capacity, l.localPath(base.name)); err != nil {
			g.mu.Unlock()
			return &types.FileFault{File: err.Error()}
		}
		if v.track != nil {
			v.track.reset()
		}
	}
	g.mu.Unlock()
	if !running {
		l.stun(vm, g) // nothing writes until its disks are opened anew
	}
	l.configure(sim, &vm.VirtualMachine, g)
	return nil
}

// disksFollow the power state: a VM that is powered off writes nothing, one that is powered on opens its disks. The caller holds
// the VM's lock.
func (l *Lab) disksFollow(ctx *simulator.Context, vm *mo.VirtualMachine) {
	g, err := l.guest(vm)
	if err != nil || vm.Runtime.PowerState != types.VirtualMachinePowerStatePoweredOn {
		return
	}
	if sim, ok := ctx.Map.Get(vm.Self).(*simulator.VirtualMachine); ok {
		l.stun(sim, g)
		l.configure(ctx, vm, g)
	}
}

// powerDown takes the power away; the caller holds the VM's lock.
func (l *Lab) powerDown(sim *simulator.Context, vm *simulator.VirtualMachine) {
	if vm.Runtime.PowerState != types.VirtualMachinePowerStatePoweredOff {
		sim.Update(vm, []types.PropertyChange{
			{Name: "runtime.powerState", Val: types.VirtualMachinePowerStatePoweredOff},
			{Name: "summary.runtime.powerState", Val: types.VirtualMachinePowerStatePoweredOff},
		})
	}
}

// setProduct makes a host say another version and build: some builds are known for changed areas that are wrong. Reference:
// HostConfigInfo.product, HostConfigSummary.product (AboutInfo).
func (l *Lab) setProduct(host string, p Product) bool {
	h, ok := l.hosts[host]
	if !ok {
		return false
	}
	sim := l.context()
	x := sim.Map.Get(h.Reference()).(*simulator.HostSystem)
	sim.WithLock(x, func() {
		about := x.Config.Product
		about.Version, about.Build = p.Version, p.Build
		about.FullName = fmt.Sprintf("VMware ESXi %s build-%s", p.Version, p.Build)
		config := *x.Config
		config.Product = about
		sim.Update(x, []types.PropertyChange{{Name: "config", Val: config}, {Name: "summary.config.product", Val: about}})
	})
	return true
}

// cbtChange is for for the control port: another UUID, or a sequence that goes back.
func (l *Lab) cbtChange(vm *simulator.VirtualMachine, g *Guest, key int32, change func(*Track)) int {
	sim, n := l.context(), 0
	sim.WithLock(vm, func() {
		g.mu.Lock()
		for _, v := range g.disks {
			if v.track != nil && (key == 0 || key == v.key) {
				change(v.track)
				n++
			}
		}
		g.mu.Unlock()
		l.configure(sim, &vm.VirtualMachine, g)
	})
	return n
}
