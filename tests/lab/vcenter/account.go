// Copyright (c) 2026, ferry.vmware contributors
// GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
// SPDX-License-Identifier: GPL-3.0-or-later

package main

import (
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/vmware/govmomi/simulator"
	"github.com/vmware/govmomi/vim25/methods"
	"github.com/vmware/govmomi/vim25/mo"
	"github.com/vmware/govmomi/vim25/soap"
	"github.com/vmware/govmomi/vim25/types"
)

// What the account that is logged in may do and see, by switches: the simulator lets everybody do everything.

// AuthorizationManager answers questions about privileges; operations themselves are not refused. Reference: AuthorizationManager.
// HasPrivilegeOnEntities ("check whether a specified session holds a set of privileges on a set of managed entities"; "if the session does
// not exist, false is returned for all privileges of all the entities"; each entity needs System.Read, else NoPermission).
type AuthorizationManager struct {
	*simulator.AuthorizationManager
	lab *Lab
}

func (m *AuthorizationManager) HasPrivilegeOnEntities(ctx *simulator.Context, req *types.HasPrivilegeOnEntities) soap.HasFault {
	body := &methods.HasPrivilegeOnEntitiesBody{Res: &types.HasPrivilegeOnEntitiesResponse{}}
	for _, ref := range req.Entity {
		denied := strings.Split(m.lab.switches.Get("privileges_missing", m.lab.nameOf(ref), 0), ",")
		if slices.Contains(denied, "System.Read") {
			return &methods.HasPrivilegeOnEntitiesBody{Fault_: simulator.Fault("", &types.NoPermission{Object: &ref, PrivilegeId: "System.Read"})}
		}
		found := types.EntityPrivilege{Entity: ref}
		for _, id := range req.PrivId {
			granted := req.SessionId == ctx.Session.Key && !slices.Contains(denied, id) && !slices.Contains(denied, "*")
			found.PrivAvailability = append(found.PrivAvailability, types.PrivilegeAvailability{PrivId: id, IsGranted: granted})
		}
		body.Res.Returnval = append(body.Res.Returnval, found)
	}
	return body
}

// seen leaves out what the account may not see. Reference: vSphere Web Services SDK Programming Guide, "Privileges Required for Accessing
// Properties"; an object without System.View is in no view.
func (l *Lab) seen(objects []types.ObjectContent) []types.ObjectContent {
	return slices.DeleteFunc(objects, func(o types.ObjectContent) bool {
		return o.Obj.Type == "VirtualMachine" && l.switches.On("invisible", l.nameOf(o.Obj), 0)
	})
}

func (p *PropertyCollector) RetrievePropertiesEx(ctx *simulator.Context, req *types.RetrievePropertiesEx) soap.HasFault {
	answer := p.PropertyCollector.RetrievePropertiesEx(ctx, req)
	if body, ok := answer.(*methods.RetrievePropertiesExBody); ok && body.Res != nil && body.Res.Returnval != nil {
		body.Res.Returnval.Objects = p.lab.seen(body.Res.Returnval.Objects)
	}
	return answer
}

func (p *PropertyCollector) ContinueRetrievePropertiesEx(ctx *simulator.Context, req *types.ContinueRetrievePropertiesEx) soap.HasFault {
	answer := p.PropertyCollector.ContinueRetrievePropertiesEx(ctx, req)
	if body, ok := answer.(*methods.ContinueRetrievePropertiesExBody); ok && body.Res != nil {
		body.Res.Returnval.Objects = p.lab.seen(body.Res.Returnval.Objects)
	}
	return answer
}

// ServiceInstance has a clock that may be wrong. Reference: ServiceInstance.CurrentTime.
type ServiceInstance struct {
	*simulator.ServiceInstance
	lab *Lab
}

func (s *ServiceInstance) CurrentTime(*types.CurrentTime) soap.HasFault {
	return &methods.CurrentTimeBody{Res: &types.CurrentTimeResponse{Returnval: s.lab.clock("")}}
}

func (l *Lab) clock(host string) time.Time {
	ahead, _ := strconv.ParseFloat(l.switches.Get("clock_ahead", host, 0), 64)
	return time.Now().Add(time.Duration(ahead * float64(time.Second)))
}

// HostDateTimeSystem is a host's clock. Reference: HostDateTimeSystem.QueryDateTime ("get the current DateTime on the host").
type HostDateTimeSystem struct {
	mo.HostDateTimeSystem
	lab  *Lab
	host string
}

func (s *HostDateTimeSystem) QueryDateTime(*types.QueryDateTime) soap.HasFault {
	return &methods.QueryDateTimeBody{Res: &types.QueryDateTimeResponse{Returnval: s.lab.clock(s.host)}}
}

// addClock gives a host its own: in the simulator all have the same reference, with nothing behind it.
func (l *Lab) addClock(h *simulator.HostSystem) {
	ref := types.ManagedObjectReference{Type: "HostDateTimeSystem", Value: "dateTimeSystem-" + strings.TrimPrefix(h.Self.Value, "host-")}
	l.service.Context.Map.Put(&HostDateTimeSystem{HostDateTimeSystem: mo.HostDateTimeSystem{Self: ref}, lab: l, host: h.Name})
	h.ConfigManager.DateTimeSystem = &ref
}
