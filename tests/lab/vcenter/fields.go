// Copyright (c) 2026, ferry.vmware contributors
// GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
// SPDX-License-Identifier: GPL-3.0-or-later

package main

import (
	"slices"

	"github.com/vmware/govmomi/simulator"
	"github.com/vmware/govmomi/vim25/methods"
	"github.com/vmware/govmomi/vim25/mo"
	"github.com/vmware/govmomi/vim25/soap"
	"github.com/vmware/govmomi/vim25/types"
)

// CustomFields says of each custom attribute that its values are strings, also of one that is for all types, and refuses a
// name that is taken when one is renamed. Reference: CustomFieldsManager ("presently, the only supported type is string" of
// AddCustomFieldDef; DuplicateName of RenameCustomFieldDef), CustomFieldDef.type. The simulator gives the type of the
// managed object there, which is empty for all types: clients refuse that.
type CustomFields struct {
	*simulator.CustomFieldsManager
	lab *Lab
}

// kinds of managed objects that have custom attributes. Reference: CustomFieldsManager.AddCustomFieldDef (moType: "if empty, the field
// applies to all managed objects" that are ManagedEntity or ExtensibleManagedObject).
func fieldKinds(kind string) []string {
	if kind != "" {
		return []string{kind}
	}
	return []string{"VirtualMachine", "HostSystem", "ClusterComputeResource", "ComputeResource", "Datastore", "Datacenter", "Folder",
		"ResourcePool"}
}

func (c *CustomFields) AddCustomFieldDef(ctx *simulator.Context, req *types.AddCustomFieldDef) soap.HasFault {
	answer := c.CustomFieldsManager.AddCustomFieldDef(ctx, req)
	body, ok := answer.(*methods.AddCustomFieldDefBody)
	if !ok || body.Res == nil {
		return answer
	}
	key := body.Res.Returnval.Key
	body.Res.Returnval.Type = "string"
	name := func(defs []types.CustomFieldDef) {
		for i := range defs {
			if defs[i].Key == key {
				defs[i].Type = "string"
			}
		}
	}
	name(c.Field)
	for _, kind := range fieldKinds(req.MoType) {
		for _, e := range ctx.Map.All(kind) {
			entity := e.(mo.Entity).Entity()
			ctx.WithLock(entity, func() {
				if req.MoType == "" {
					entity.AvailableField = append(entity.AvailableField, body.Res.Returnval)
				}
				name(entity.AvailableField)
			})
		}
	}
	return body
}

// SetField tells clients that wait for updates, and posts the event. References: CustomFieldsManager.SetField; CustomFieldValueChangedEvent.
func (c *CustomFields) SetField(ctx *simulator.Context, req *types.SetField) soap.HasFault {
	e, ok := ctx.Map.Get(req.Entity).(mo.Entity)
	if !ok {
		return &methods.SetFieldBody{Fault_: simulator.Fault("", &types.ManagedObjectNotFound{Obj: req.Entity})}
	}
	answer := c.CustomFieldsManager.SetField(ctx, req)
	if answer.Fault() != nil {
		return answer
	}
	entity := e.Entity()
	ctx.WithLock(e, func() {
		ctx.Update(e, []types.PropertyChange{{Name: "value", Val: slices.Clone(entity.Value)}, {Name: "customValue",
			Val: slices.Clone(entity.CustomValue)}})
	})
	event := &types.CustomFieldValueChangedEvent{FieldKey: req.Key, Value: req.Value,
		Entity: types.ManagedEntityEventArgument{EntityEventArgument: types.EntityEventArgument{Name: entity.Name}, Entity: req.Entity}}
	for _, f := range c.Field {
		if f.Key == req.Key {
			event.Name = f.Name
		}
	}
	c.lab.post(ctx, event)
	return answer
}

func (c *CustomFields) RenameCustomFieldDef(ctx *simulator.Context, req *types.RenameCustomFieldDef) soap.HasFault {
	for _, f := range c.Field {
		if f.Name == req.Name && f.Key != req.Key {
			return &methods.RenameCustomFieldDefBody{Fault_: simulator.Fault("", &types.DuplicateName{Name: req.Name, Object: c.Reference()})}
		}
	}
	return c.CustomFieldsManager.RenameCustomFieldDef(ctx, req)
}
