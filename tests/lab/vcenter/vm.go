// Copyright (c) 2026, ferry.vmware contributors
// GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
// SPDX-License-Identifier: GPL-3.0-or-later

package main

import (
	"context"
	"fmt"
	"path"
	"slices"
	"sort"
	"strings"
	"time"

	"github.com/vmware/govmomi/object"
	"github.com/vmware/govmomi/simulator"
	"github.com/vmware/govmomi/vim25/methods"
	"github.com/vmware/govmomi/vim25/types"
)

// guestNames are the full names of vSphere's GuestOsDescriptor for the systems that our models have.
var guestNames = map[string]string{
	"debian11_64Guest":       "Debian GNU/Linux 11 (64-bit)",
	"debian12_64Guest":       "Debian GNU/Linux 12 (64-bit)",
	"ubuntu64Guest":          "Ubuntu Linux (64-bit)",
	"rhel8_64Guest":          "Red Hat Enterprise Linux 8 (64-bit)",
	"rhel9_64Guest":          "Red Hat Enterprise Linux 9 (64-bit)",
	"centos7_64Guest":        "CentOS 7 (64-bit)",
	"windows9Server64Guest":  "Microsoft Windows Server 2016 or later (64-bit)",
	"windows2019srv_64Guest": "Microsoft Windows Server 2019 (64-bit)",
	"otherGuest":             "Other (32-bit)",
	"otherLinux64Guest":      "Other Linux (64-bit)",
}

func (l *Lab) buildVMs(ctx context.Context) error {
	m := &l.config.Model
	for i := range m.VMs {
		if err := l.buildVM(ctx, &m.VMs[i]); err != nil {
			return fmt.Errorf("VM %s: %w", m.VMs[i].Name, err)
		}
	}
	if b := m.Bulk; b != nil {
		hosts := l.hostNames()
		for i := range b.VMs {
			host := hosts[i%len(hosts)]
			vm := VM{
				Name: fmt.Sprintf("%s%04d", b.Prefix, i), Host: host, GuestID: "otherLinux64Guest", Firmware: "bios", CPUs: 1, CoresPerSocket: 1, MemoryMB: 1024,
				Power: []string{"on", "off"}[i%2], Tools: "running", HwVersion: "vmx-19",
				Disks: []Disk{{Controller: "pvscsi", Capacity: 16 << 30, Provisioning: "thin", Mode: "persistent"}},
				NICs:  []NIC{{Network: m.Networks[0].Name, MAC: fmt.Sprintf("00:50:56:20:%02x:%02x", i>>8&0xff, i&0xff), Type: "vmxnet3"}},
			}
			vm.UUID, vm.BiosUUID = fixedUUID("bulk:"+vm.Name), fixedUUID("bulk-bios:"+vm.Name)
			for _, d := range m.Datastores {
				if slices.Contains(d.Hosts, host) {
					vm.Datastore = d.Name
					break
				}
			}
			if err := l.buildVM(ctx, &vm); err != nil {
				return fmt.Errorf("VM %s: %w", vm.Name, err)
			}
		}
	}
	return nil
}

func (l *Lab) vmFolder(ctx context.Context, name string) (*object.Folder, error) {
	if name == "" || name == "." {
		return l.folders.VmFolder, nil
	}
	if f, ok := l.vmFolders[name]; ok {
		return f, nil
	}
	parent, err := l.vmFolder(ctx, path.Dir(name))
	if err != nil {
		return nil, err
	}
	f, err := parent.CreateFolder(ctx, path.Base(name))
	if err == nil {
		l.vmFolders[name] = f
	}
	return f, err
}

// fileName is what vSphere calls a VM's folder and files: its name, with the characters that a path cannot hold escaped.
func fileName(name string) string {
	return strings.NewReplacer("%", "%25", "/", "%2f", `\`, "%5c").Replace(name)
}

func (l *Lab) buildVM(ctx context.Context, v *VM) error {
	host, ok := l.hosts[v.Host]
	if !ok {
		return fmt.Errorf("no host %s", v.Host)
	}
	home, ok := l.datastores[v.Datastore]
	if !ok || !slices.Contains(home.Model.Hosts, v.Host) {
		return fmt.Errorf("host %s has no datastore %s", v.Host, v.Datastore)
	}
	folder, err := l.vmFolder(ctx, strings.Trim(v.Folder, "/"))
	if err != nil {
		return err
	}
	name := fileName(v.Name)
	spec := types.VirtualMachineConfigSpec{
		Name: v.Name, GuestId: v.GuestID, Uuid: v.BiosUUID, InstanceUuid: v.UUID, Firmware: v.Firmware, NumCPUs: v.CPUs, NumCoresPerSocket: v.CoresPerSocket,
		MemoryMB: v.MemoryMB, Version: v.HwVersion, Annotation: v.Annotation, ChangeTrackingEnabled: types.NewBool(v.CBT),
		Files: &types.VirtualMachineFileInfo{VmPathName: fmt.Sprintf("[%s] %s/%s.vmx", v.Datastore, name, name)},
	}
	if v.SecureBoot {
		spec.BootOptions = &types.VirtualMachineBootOptions{EfiSecureBootEnabled: types.NewBool(true)}
	}
	// Called directly: a client's wait for a task costs 10 ms, and so does Task.Wait, which a thousand VMs feel.
	reg, sim, ref := l.service.Context.Map, l.context(), host.Reference()
	body, ok := reg.Get(folder.Reference()).(*simulator.Folder).CreateVMTask(sim, &types.CreateVM_Task{
		This: folder.Reference(), Config: spec, Pool: l.pools[v.Host].Reference(), Host: &ref,
	}).(*methods.CreateVM_TaskBody)
	if !ok || body.Res == nil {
		return fmt.Errorf("it was not created: %+v", body)
	}
	task := reg.Get(body.Res.Returnval).(*simulator.Task)
	for settled := false; !settled; time.Sleep(20 * time.Microsecond) {
		reg.WithLock(l.context(), task, func() {
			settled = task.Info.State == types.TaskInfoStateSuccess || task.Info.State == types.TaskInfoStateError
		})
	}
	if task.Info.Error != nil {
		return fmt.Errorf("it was not created: %T %+v", task.Info.Error.Fault, task.Info.Error.Fault)
	}
	vm := reg.Get(task.Info.Result.(types.ManagedObjectReference)).(*simulator.VirtualMachine)
	if err = l.addDevices(vm, v); err != nil {
		return err
	}
	l.vms[vm.Self] = &VMState{Model: *v, Ref: vm.Self}
	if err = l.writeFiles(vm, v); err != nil {
		return err
	}
	l.settle(vm, v)
	l.give(vm, &v.Traits)
	if err = spoil(vm, v); err != nil {
		return err
	}
	if v.CBT {
		g, err := l.guest(&vm.VirtualMachine)
		if err != nil {
			return err
		}
		l.stun(vm, g)
		l.configure(l.context(), &vm.VirtualMachine, g)
	}
	if v.Template {
		l.makeTemplate(l.context(), vm)
	}
	return l.setCustom(ctx, vm, v)
}

// settle gives a new VM what follows from its devices and its model.
func (l *Lab) settle(vm *simulator.VirtualMachine, v *VM) {
	refreshStorage(l.context(), vm, &types.RefreshStorageInfo{This: vm.Self})
	l.fixStorage(&vm.VirtualMachine)
	full := v.GuestFullName
	if full == "" {
		full = guestNames[v.GuestID]
	}
	if full == "" {
		full = v.GuestID
	}
	vm.Config.GuestFullName, vm.Summary.Config.GuestFullName = full, full
	vm.Summary.Config.Annotation = v.Annotation
	vm.Summary.Config.InstanceUuid = v.UUID
	vm.Summary.Config.CpuReservation, vm.Summary.Config.MemoryReservation = 0, 0
	vm.Capability.ChangeTrackingSupported = types.NewBool(true)
	vm.Runtime.ConsolidationNeeded = types.NewBool(false)
	l.fixEnums(vm)
	l.setPower(vm, v)
}

// makeTemplate takes a VM out of its resource pool. Reference: VirtualMachine.MarkAsTemplate ("the virtual machine is removed from its
// resource pool").
func (l *Lab) makeTemplate(sim *simulator.Context, vm *simulator.VirtualMachine) {
	if pool := vm.ResourcePool; pool != nil {
		relistPool(sim, *pool, vm.Self, false)
	}
	vm.Config.Template, vm.Summary.Config.Template, vm.ResourcePool = true, true, nil
}

// setPower puts a new VM into the power state of the model without the tasks and events of a power operation.
func (l *Lab) setPower(vm *simulator.VirtualMachine, v *VM) {
	state := map[string]types.VirtualMachinePowerState{
		"on": types.VirtualMachinePowerStatePoweredOn, "suspended": types.VirtualMachinePowerStateSuspended,
	}[v.Power]
	if state == "" {
		state = types.VirtualMachinePowerStatePoweredOff
	}
	on := state == types.VirtualMachinePowerStatePoweredOn
	vm.Runtime.PowerState = state
	if on {
		vm.Runtime.BootTime = types.NewTime(time.Now())
	}
	for _, d := range vm.Config.Hardware.Device {
		if c := d.GetVirtualDevice().Connectable; c != nil {
			c.Connected = on && c.StartConnected
		}
	}
	host := vm.Runtime.Host
	vm.Summary.Runtime = vm.Runtime
	vm.Summary.Runtime.Host = host
	l.context().Update(vm, l.guestChanges(&vm.VirtualMachine, v))
	l.setLocks(&vm.VirtualMachine)
}

func (l *Lab) setCustom(ctx context.Context, vm *simulator.VirtualMachine, v *VM) error {
	fields, err := object.GetCustomFieldsManager(l.client)
	if err != nil {
		return err
	}
	names := make([]string, 0, len(v.Custom))
	for name := range v.Custom {
		names = append(names, name)
	}
	sort.Strings(names)
	for _, name := range names {
		key, ok := l.fields[name]
		if !ok {
			def, err := fields.Add(ctx, name, "VirtualMachine", nil, nil)
			if err != nil {
				return fmt.Errorf("custom attribute %s: %w", name, err)
			}
			key = def.Key
			l.fields[name] = key
		}
		if err = fields.Set(ctx, vm.Self, key, v.Custom[name]); err != nil {
			return fmt.Errorf("custom attribute %s: %w", name, err)
		}
	}
	return nil
}

// fixEnums fills in enumerations that the simulator leaves empty: the schema of VirtualMachineRuntimeInfo does not allow an
// empty string there, and pyvmomi refuses it.
func (l *Lab) fixEnums(vm *simulator.VirtualMachine) {
	for _, r := range []*types.VirtualMachineRuntimeInfo{&vm.Runtime, &vm.Summary.Runtime} {
		if r.FaultToleranceState == "" {
			r.FaultToleranceState = types.VirtualMachineFaultToleranceStateNotConfigured
		}
		if r.RecordReplayState == "" {
			r.RecordReplayState = types.VirtualMachineRecordReplayStateInactive
		}
	}
}
