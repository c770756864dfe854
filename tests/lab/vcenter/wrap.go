// Copyright (c) 2026, ferry.vmware contributors
// GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
// SPDX-License-Identifier: GPL-3.0-or-later

package main

import (
	"reflect"
	"strings"
	"sync"

	"github.com/vmware/govmomi/object"
	"github.com/vmware/govmomi/simulator"
	"github.com/vmware/govmomi/vim25/methods"
	"github.com/vmware/govmomi/vim25/mo"
	"github.com/vmware/govmomi/vim25/soap"
	"github.com/vmware/govmomi/vim25/types"
)

// Wrappers puts our own methods in front of the simulator's objects.
//
// Registry.Handler is asked before each call, but its answer is ignored once a session is logged in: the session's own
// registry comes first there. So the wrapper is put into the session's registry, while the service's map keeps the plain
// type, which the simulator asserts in many places. It is also told of every change (simulator.RegisterObject): a removed
// object's wrappers are forgotten, and the guest follows the power state whichever operation changed it.
type Wrappers struct {
	lab      *Lab
	mu       sync.Mutex
	sessions map[*simulator.Registry]bool

	collectors map[*simulator.PropertyCollector]string // with the session's key
}

func NewWrappers(l *Lab) *Wrappers {
	return &Wrappers{lab: l, sessions: map[*simulator.Registry]bool{}, collectors: map[*simulator.PropertyCollector]string{}}
}

func (w *Wrappers) Reference() types.ManagedObjectReference {
	return types.ManagedObjectReference{Type: "FerryLab", Value: "wrappers"}
}

// anonymous says which objects may be read before a log-in: the reference gives ServiceInstance.content and
// SessionManager.currentSession the privilege System.Anonymous. The simulator lets everything be read.
func anonymous(method *simulator.Method) bool {
	switch b := method.Body.(type) {
	case *types.RetrievePropertiesEx:
		return anonymousSpecs(b.SpecSet)
	case *types.RetrieveProperties:
		return anonymousSpecs(b.SpecSet)
	}
	if method.Name == "Fetch" { // its type is internal to govmomi
		ref, ok := reflect.ValueOf(method.Body).Elem().FieldByName("This").Interface().(types.ManagedObjectReference)
		return ok && anonymousType(ref.Type)
	}
	return true
}

func anonymousType(name string) bool {
	return name == "ServiceInstance" || name == "SessionManager"
}

func anonymousSpecs(specs []types.PropertyFilterSpec) bool {
	for _, s := range specs {
		for _, o := range s.ObjectSet {
			if !anonymousType(o.Obj.Type) || len(o.SelectSet) > 0 {
				return false
			}
		}
	}
	return true
}

// Handle is Registry.Handler.
func (w *Wrappers) Handle(ctx *simulator.Context, c *simulator.Method) (mo.Reference, types.BaseMethodFault) {
	w.lab.stats.Method(c.Name)
	if ctx.Session == nil {
		if !anonymous(c) {
			return nil, &types.NotAuthenticated{NoPermission: types.NoPermission{Object: &c.This, PrivilegeId: "System.View"}}
		}
		return nil, nil
	}
	if fault := w.lab.faults.Soap(c.Name, w.lab.nameOf(c.This)); fault != nil {
		return nil, fault
	}
	if fault := w.lab.refuse(ctx, c); fault != nil {
		return nil, fault
	}
	registry := ctx.Session.Registry
	if c.This.Type == "PropertyCollector" {
		if own, ok := ctx.Session.Get(c.This).(*simulator.PropertyCollector); ok {
			registry.Put(&PropertyCollector{PropertyCollector: own, lab: w.lab})
		}
		return nil, nil
	}
	if registry.Get(c.This) != nil {
		return nil, nil
	}
	switch o := ctx.Map.Get(c.This).(type) {
	case *simulator.VirtualMachine:
		w.lab.fixEnums(o)
		registry.Put(&VirtualMachine{VirtualMachine: o, lab: w.lab})
	case *simulator.VirtualMachineSnapshot:
		registry.Put(&VirtualMachineSnapshot{VirtualMachineSnapshot: o, lab: w.lab})
	case *simulator.Datastore:
		registry.Put(&StoredDatastore{Datastore: o, lab: w.lab})
	case *simulator.CustomFieldsManager:
		registry.Put(&CustomFields{CustomFieldsManager: o, lab: w.lab})
	default:
		other := w.lab.instead(ctx, c)
		if other == nil {
			return nil, nil
		}
		registry.Put(other)
	}
	w.mu.Lock()
	w.sessions[registry] = true
	w.mu.Unlock()
	return nil, nil
}

// PutObject implements simulator.RegisterObject: a new task gets the names that the product gives. Reference: TaskInfo.name
// ("the name of the operation that created the task", in the field PowerOnVM_Task and the like), entityName, reason.
func (w *Wrappers) PutObject(ctx *simulator.Context, obj mo.Reference) {
	for _, p := range w.listeners() {
		p.PutObject(ctx, obj)
	}
	task, ok := obj.(*simulator.Task)
	if !ok {
		return
	}
	task.Info.Name = taskName(task.Info.Name)
	if task.Info.Entity != nil {
		task.Info.EntityName = w.lab.nameOf(*task.Info.Entity)
	}
	if ctx.Session != nil && ctx.Session.UserName != "" {
		task.Info.Reason = &types.TaskReasonUser{UserName: ctx.Session.UserName}
	}
}

// taskName turns the simulator's "PowerOn" or "ReconfigVm" into the name of the method.
func taskName(name string) string {
	switch name {
	case "PowerOn", "PowerOff", "Suspend", "Reset":
		return name + "VM_Task"
	case "CreateSnapshotEx":
		return "CreateSnapshot_Task"
	}
	if strings.HasSuffix(name, "_Task") {
		return name
	}
	if base, ok := strings.CutSuffix(name, "Vm"); ok {
		name = base + "VM"
	}
	return name + "_Task"
}

// RemoveObject implements simulator.RegisterObject: no session may go on seeing an object that is gone. SessionManager.Logout
// comes here with its session's registry locked, for views and filters: those are none of ours.
func (w *Wrappers) RemoveObject(ctx *simulator.Context, ref types.ManagedObjectReference) {
	for _, p := range w.listeners() {
		p.RemoveObject(ctx, ref)
	}
	switch ref.Type {
	case "VirtualMachine", "Datastore", "VirtualMachineSnapshot", "HostSystem", "Folder", "Task", "Datacenter":
	default:
		return
	}
	w.lab.locks.Set(ref, nil)
	w.lab.forget(ref)
	w.mu.Lock()
	defer w.mu.Unlock()
	for r := range w.sessions {
		switch r.Get(ref).(type) {
		case *VirtualMachine, *VirtualMachineSnapshot, *StoredDatastore, *HostSystem, *Folder, *Task, *Datacenter:
			r.Remove(ctx, ref)
		}
	}
}

// UpdateObject implements simulator.RegisterObject.
func (w *Wrappers) UpdateObject(ctx *simulator.Context, obj mo.Reference, changes []types.PropertyChange) {
	if c, ok := obj.(*mo.EventHistoryCollector); ok && w.lab.events != nil && c.Self == w.lab.events.inner {
		w.lab.events.took(changes)
		return // no client has it: property collectors would look at all their objects for each event
	}
	if task, ok := obj.(*mo.Task); ok {
		describeError(task)
	}
	for _, p := range w.listeners() {
		p.UpdateObject(ctx, obj, changes)
	}
	vm, ok := obj.(*mo.VirtualMachine)
	if !ok {
		return
	}
	for _, c := range changes {
		if c.Name == "runtime.powerState" || c.Name == "config.hardware.device" {
			w.lab.setLocks(vm)
			break
		}
	}
	for _, c := range changes {
		if c.Name == "runtime.powerState" {
			w.lab.powerChanged(ctx, vm)
			w.lab.disksFollow(ctx, vm)
			break
		}
	}
}

// refuse keeps a client from bringing the simulator down: CreateVM_Task on a host, or a pool without a host, that does not
// have the datastore of files.vmPathName panics there. Reference: Folder.CreateVM_Task, fault InvalidDatastore.
func (l *Lab) refuse(ctx *simulator.Context, c *simulator.Method) types.BaseMethodFault {
	if fault := l.unfit(ctx, c); fault != nil {
		return fault
	}
	req, ok := c.Body.(*types.CreateVM_Task)
	if !ok || req.Config.Files == nil {
		return nil
	}
	var p object.DatastorePath
	if !p.FromString(req.Config.Files.VmPathName) {
		return &types.InvalidDatastorePath{DatastorePath: req.Config.Files.VmPathName}
	}
	var hosts []types.ManagedObjectReference
	if req.Host != nil {
		hosts = append(hosts, *req.Host)
	} else if pool, ok := ctx.Map.Get(req.Pool).(*simulator.ResourcePool); ok {
		switch owner := ctx.Map.Get(pool.Owner).(type) {
		case *simulator.ClusterComputeResource:
			hosts = owner.Host
		case *mo.ComputeResource:
			hosts = owner.Host
		}
	}
	for _, ref := range hosts {
		if host, ok := ctx.Map.Get(ref).(*simulator.HostSystem); ok && ctx.Map.FindByName(p.Datastore, host.Datastore) != nil {
			return nil
		}
	}
	return &types.InvalidDatastore{Name: p.Datastore}
}

func (l *Lab) nameOf(ref types.ManagedObjectReference) string {
	if e, ok := l.service.Context.Map.Get(ref).(mo.Entity); ok {
		return e.Entity().Name
	}
	return ref.Value
}

// StoredDatastore keeps capacity and free space those of the model. Reference: Datastore.RefreshDatastore ("explicitly
// refreshes free-space and capacity values in summary and info").
type StoredDatastore struct {
	*simulator.Datastore
	lab *Lab
}

func (d *StoredDatastore) RefreshDatastore(_ *simulator.Context, _ *types.RefreshDatastore) soap.HasFault {
	for _, s := range d.lab.datastores {
		if s.Ref == d.Self {
			d.lab.refreshDatastore(s)
		}
	}
	return &methods.RefreshDatastoreBody{Res: &types.RefreshDatastoreResponse{}}
}

// RefreshDatastoreStorageInfo does the same (reference: "refreshes all storage related information of the datastore").
func (d *StoredDatastore) RefreshDatastoreStorageInfo(ctx *simulator.Context, _ *types.RefreshDatastoreStorageInfo) soap.HasFault {
	d.RefreshDatastore(ctx, nil)
	return &methods.RefreshDatastoreStorageInfoBody{Res: &types.RefreshDatastoreStorageInfoResponse{}}
}
