// Copyright (c) 2026, ferry.vmware contributors
// GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
// SPDX-License-Identifier: GPL-3.0-or-later

package main

import (
	"fmt"
	"net/http"
	"reflect"
	"regexp"
	"slices"
	"sort"
	"sync"
	"text/template"
	"time"

	"github.com/vmware/govmomi/simulator"
	"github.com/vmware/govmomi/vim25/methods"
	"github.com/vmware/govmomi/vim25/mo"
	"github.com/vmware/govmomi/vim25/soap"
	"github.com/vmware/govmomi/vim25/types"
)

// maxEvents are kept; the simulator keeps a thousand, and its collectors stop when their place is among those that went.
const maxEvents = 200_000

// EventLog is the history of events. The simulator's manager makes and formats them; a collector of ours, of one event, hands them on.
type EventLog struct {
	lab        *Lab
	mu         sync.Mutex
	list       []types.BaseEvent // by key
	inner      types.ManagedObjectReference
	collectors map[*EventCollector]bool
	told       int32 // up to which key the collectors' clients have been told
}

func (l *Lab) newEventLog() (*EventLog, error) {
	log := &EventLog{lab: l, collectors: map[*EventCollector]bool{}}
	sim := l.context()
	manager := sim.Map.EventManager()
	describeEvents(&manager.EventManager)
	old, ok := manager.QueryEvents(sim, &types.QueryEvents{Filter: types.EventFilterSpec{MaxCount: 1000}}).(*methods.QueryEventsBody)
	if !ok || old.Res == nil {
		return nil, fmt.Errorf("no events: %+v", old)
	}
	log.list = old.Res.Returnval
	slices.Reverse(log.list)
	one := &types.CreateCollectorForEvents{Filter: types.EventFilterSpec{MaxCount: 1}}
	made, ok := manager.CreateCollectorForEvents(sim, one).(*methods.CreateCollectorForEventsBody)
	if !ok || made.Res == nil {
		return nil, fmt.Errorf("no collector of events: %+v", made)
	}
	log.inner = made.Res.Returnval
	go log.tell()
	return log, nil
}

var halfOpen = regexp.MustCompile(`\{\{(\.[\w.]+)\}([^}])`)

// describeEvents mends templates of the simulator that do not parse, at which it would panic, and adds those of events that only we post.
// Reference: EventDescriptionEventDetail.fullFormat.
func describeEvents(m *mo.EventManager) {
	info := slices.Clone(m.Description.EventInfo)
	known := map[string]bool{}
	for i := range info {
		known[info[i].Key] = true
		info[i].FullFormat = halfOpen.ReplaceAllString(info[i].FullFormat, "{{$1}}$2")
		if _, err := template.New("").Parse(info[i].FullFormat); err != nil {
			info[i].FullFormat = info[i].Description
		}
	}
	for key, format := range map[string]string{
		"AlarmStatusChangedEvent": "Alarm '{{.Alarm.Name}}' on {{.Entity.Name}} changed from {{.From}} to {{.To}}",
		"GeneralUserEvent":        "User logged event: {{.Message}}",
		"HostConnectedEvent":      "Connected to {{.Host.Name}} in {{.Datacenter.Name}}",
		"HostConnectionLostEvent": "Host {{.Host.Name}} in {{.Datacenter.Name}} is not responding",
		"HostDisconnectedEvent":   "Disconnected from {{.Host.Name}} in {{.Datacenter.Name}}. Reason: {{.Reason}}",
		"HostShutdownEvent":       "Shut down of {{.Host.Name}} in {{.Datacenter.Name}}: {{.Reason}}",
		"VmBeingHotMigratedEvent": "Migrating {{.Vm.Name}} off host {{.Host.Name}} in {{.Datacenter.Name}}",
		"VmConnectedEvent":        "Virtual machine {{.Vm.Name}} is connected",
		"VmDisconnectedEvent":     "{{.Vm.Name}} on host {{.Host.Name}} in {{.Datacenter.Name}} is disconnected",
		"VmFailedMigrateEvent":    "Failed to migrate {{.Vm.Name}} from {{.Host.Name}} to {{.DestHost.Name}}: {{.Reason.LocalizedMessage}}",
		"VmFailoverFailed": "vSphere HA unsuccessfully failed over {{.Vm.Name}} on {{.Host.Name}}. " +
			"vSphere HA will retry if the maximum number of attempts has not been exceeded",
		"VmRegisteredEvent":               "Registered {{.Vm.Name}} on {{.Host.Name}} in {{.Datacenter.Name}}",
		"VmRelocateFailedEvent":           "Failed to relocate {{.Vm.Name}} from {{.Host.Name}} to {{.DestHost.Name}}: {{.Reason.LocalizedMessage}}",
		"VmRestartedOnAlternateHostEvent": "Virtual machine {{.Vm.Name}} was restarted on {{.Host.Name}} since {{.SourceHost.Name}} failed",
	} {
		if !known[key] {
			info = append(info, types.EventDescriptionEventDetail{Key: key, Description: key, Category: "info", FullFormat: format})
		}
	}
	m.Description.EventInfo = info
}

// took is called with every event, by the hand of the inner collector.
func (g *EventLog) took(changes []types.PropertyChange) {
	g.mu.Lock()
	defer g.mu.Unlock()
	for _, c := range changes {
		var page []types.BaseEvent
		switch v := c.Val.(type) {
		case *types.ArrayOfEvent:
			page = v.Event
		case []types.BaseEvent:
			page = v
		}
		g.list = append(g.list, page...)
	}
	if n := len(g.list); n > 0 {
		g.lab.service.Context.Map.EventManager().LatestEvent = g.list[n-1] // its lock is held by whoever posts
	}
	if len(g.list) > maxEvents+maxEvents/10 {
		g.list = slices.Clone(g.list[len(g.list)-maxEvents:])
	}
}

func (g *EventLog) after(key int32) []types.BaseEvent {
	i := sort.Search(len(g.list), func(i int) bool { return g.list[i].GetEvent().Key > key })
	return g.list[i:]
}

// tell updates latestPage of the collectors with new events, some times a second, however many events there are.
func (g *EventLog) tell() {
	for purge := 0; ; purge++ {
		time.Sleep(20 * time.Millisecond)
		g.mu.Lock()
		var due []*EventCollector
		fresh := g.after(g.told)
		for c := range g.collectors {
			if purge%100 == 0 && !g.lab.alive(c.session) {
				delete(g.collectors, c)
			} else if slices.ContainsFunc(fresh, c.matches) {
				due = append(due, c)
			}
		}
		if len(fresh) > 0 {
			g.told = fresh[len(fresh)-1].GetEvent().Key
		}
		g.mu.Unlock()
		sim := g.lab.context()
		for _, c := range due {
			page := c.latest()
			sim.WithLock(c, func() { sim.Update(c, []types.PropertyChange{{Name: "latestPage", Val: page}}) })
		}
	}
}

func (l *Lab) alive(session string) bool {
	manager := l.service.Context.Map.SessionManager()
	body, ok := manager.SessionIsActive(l.context(), &types.SessionIsActive{SessionID: session,
		UserName: l.config.User}).(*methods.SessionIsActiveBody)
	return ok && body.Res != nil && body.Res.Returnval
}

// EventManager is the simulator's, over the whole history. Reference: EventManager.QueryEvents, CreateCollectorForEvents ("InvalidState: if
// there are more than the maximum number of event collectors", 32), EventFilterSpec.maxCount; pages of at most 1,000.
type EventManager struct {
	*simulator.EventManager
	lab *Lab
}

func pageSize(n, otherwise int32) (int, types.BaseMethodFault) {
	if n == 0 {
		n = otherwise
	}
	if n < 0 || n > 1000 {
		return 0, &types.InvalidArgument{InvalidProperty: "maxCount"}
	}
	return int(n), nil
}

func (m *EventManager) QueryEvents(ctx *simulator.Context, req *types.QueryEvents) soap.HasFault {
	body := &methods.QueryEventsBody{}
	size, fault := pageSize(req.Filter.MaxCount, 1000)
	if fault != nil {
		body.Fault_ = simulator.Fault(faultText(fault), fault)
		return body
	}
	c := &EventCollector{log: m.lab.events, filter: req.Filter, size: size, sim: ctx}
	body.Res = &types.QueryEventsResponse{Returnval: c.latest()}
	return body
}

func (m *EventManager) CreateCollectorForEvents(ctx *simulator.Context, req *types.CreateCollectorForEvents) soap.HasFault {
	body := &methods.CreateCollectorForEventsBody{}
	size, fault := pageSize(req.Filter.MaxCount, 1000)
	log := m.lab.events
	log.mu.Lock()
	for c := range log.collectors {
		if len(log.collectors) >= 32 && !m.lab.alive(c.session) {
			delete(log.collectors, c)
		}
	}
	if fault == nil && len(log.collectors) >= 32 {
		fault = &types.InvalidState{}
	}
	log.mu.Unlock()
	if fault != nil {
		body.Fault_ = simulator.Fault(faultText(fault), fault)
		return body
	}
	own := *ctx
	c := &EventCollector{log: log, filter: req.Filter, size: size, sim: &own, session: ctx.Session.Key}
	c.Filter = req.Filter
	c.Self = types.ManagedObjectReference{Type: "EventHistoryCollector", Value: fmt.Sprintf("session[%s]%d", ctx.Session.Key,
		m.lab.tasks.Add(1))}
	ctx.Session.Registry.Put(c)
	log.mu.Lock()
	log.collectors[c] = true
	log.mu.Unlock()
	body.Res = &types.CreateCollectorForEventsResponse{Returnval: c.Self}
	return body
}

// EventCollector is a view of the history. Reference: HistoryCollector (ResetCollector: "moves the scrollable view to the item immediately
// preceding the viewable latest page", RewindCollector: "to the oldest item"), EventHistoryCollector (ReadNextEvents: "no item is returned
// when the end of the scrollable view is reached", latestPage: "the events in the returned page are unordered").
type EventCollector struct {
	mo.EventHistoryCollector

	log     *EventLog
	filter  types.EventFilterSpec
	size    int
	session string
	sim     *simulator.Context
	at      int32 // the key of the event read last
	end     bool  // ReadPreviousEvents begins at the newest
	reads   bool
}

func (c *EventCollector) latest() []types.BaseEvent {
	c.log.mu.Lock()
	defer c.log.mu.Unlock()
	page := []types.BaseEvent{}
	for _, e := range slices.Backward(c.log.list) {
		if len(page) == c.size {
			break
		}
		if c.matches(e) {
			page = append(page, e)
		}
	}
	return page
}

// Get is called by the property collector.
func (c *EventCollector) Get() mo.Reference {
	shown := *c
	shown.LatestPage = c.latest()
	return &shown
}

func (c *EventCollector) ReadNextEvents(_ *simulator.Context, req *types.ReadNextEvents) soap.HasFault {
	body := &methods.ReadNextEventsBody{}
	if req.MaxCount <= 0 {
		body.Fault_ = simulator.Fault("", &types.InvalidArgument{InvalidProperty: "maxCount"})
		return body
	}
	body.Res = &types.ReadNextEventsResponse{}
	c.log.mu.Lock()
	defer c.log.mu.Unlock()
	c.reads = true
	for _, e := range c.log.after(c.at) {
		if len(body.Res.Returnval) == int(req.MaxCount) {
			break
		}
		c.at = e.GetEvent().Key
		if c.matches(e) {
			body.Res.Returnval = append(body.Res.Returnval, e)
		}
	}
	return body
}

func (c *EventCollector) ReadPreviousEvents(_ *simulator.Context, req *types.ReadPreviousEvents) soap.HasFault {
	body := &methods.ReadPreviousEventsBody{}
	if req.MaxCount <= 0 {
		body.Fault_ = simulator.Fault("", &types.InvalidArgument{InvalidProperty: "maxCount"})
		return body
	}
	body.Res = &types.ReadPreviousEventsResponse{}
	c.log.mu.Lock()
	defer c.log.mu.Unlock()
	for _, e := range slices.Backward(c.log.list) {
		if len(body.Res.Returnval) == int(req.MaxCount) {
			break
		}
		if key := e.GetEvent().Key; c.reads && !c.end && key >= c.at {
			continue
		} else {
			c.at = key
		}
		c.reads, c.end = true, false
		if c.matches(e) {
			body.Res.Returnval = append(body.Res.Returnval, e)
		}
	}
	return body
}

func (c *EventCollector) ResetCollector(_ *simulator.Context, _ *types.ResetCollector) soap.HasFault {
	c.log.mu.Lock()
	defer c.log.mu.Unlock()
	c.at, c.end = 0, true
	if n := len(c.log.list); n > 0 {
		c.at = c.log.list[n-1].GetEvent().Key
	}
	return &methods.ResetCollectorBody{Res: &types.ResetCollectorResponse{}}
}

func (c *EventCollector) RewindCollector(_ *simulator.Context, _ *types.RewindCollector) soap.HasFault {
	c.log.mu.Lock()
	defer c.log.mu.Unlock()
	c.at, c.end, c.reads = 0, false, true
	return &methods.RewindCollectorBody{Res: &types.RewindCollectorResponse{}}
}

func (c *EventCollector) SetCollectorPageSize(_ *simulator.Context, req *types.SetCollectorPageSize) soap.HasFault {
	body := &methods.SetCollectorPageSizeBody{}
	size, fault := pageSize(req.MaxCount, 10)
	if fault != nil {
		body.Fault_ = simulator.Fault(faultText(fault), fault)
		return body
	}
	c.log.mu.Lock()
	defer c.log.mu.Unlock()
	c.size = size
	body.Res = &types.SetCollectorPageSizeResponse{}
	return body
}

func (c *EventCollector) DestroyCollector(ctx *simulator.Context, _ *types.DestroyCollector) soap.HasFault {
	c.log.mu.Lock()
	delete(c.log.collectors, c)
	c.log.mu.Unlock()
	ctx.Session.Registry.Remove(ctx, c.Self)
	return &methods.DestroyCollectorBody{Res: &types.DestroyCollectorResponse{}}
}

// matches: reference: EventFilterSpec (entity with recursion, time, userName, eventChainId, type and eventTypeId: "the set of event types …
// EventEx.eventTypeId … or the name of a class, whose subclasses match too").
func (c *EventCollector) matches(event types.BaseEvent) bool {
	f, e := &c.filter, event.GetEvent()
	if f.EventChainId != 0 && f.EventChainId != e.ChainId {
		return false
	}
	if t := f.Time; t != nil && (t.BeginTime != nil && e.CreatedTime.Before(*t.BeginTime) || t.EndTime != nil &&
		e.CreatedTime.After(*t.EndTime)) {
		return false
	}
	if u := f.UserName; u != nil && (u.SystemUser && e.UserName != "" || len(u.UserList) > 0 && !slices.Contains(u.UserList, e.UserName)) {
		return false
	}
	if ids := slices.Concat(f.EventTypeId, f.Type); len(ids) > 0 && !isEvent(event, ids) {
		return false
	}
	return f.Entity == nil || c.concerns(event, f.Entity)
}

func isEvent(event types.BaseEvent, ids []string) bool {
	if x, ok := event.(*types.EventEx); ok && slices.Contains(ids, x.EventTypeId) {
		return true
	}
	kind := reflect.TypeOf(event).Elem()
	for {
		name := kind.Name()
		if slices.Contains(ids, name) || slices.Contains(ids, "vim.event."+name) {
			return true
		}
		if kind.NumField() == 0 || !kind.Field(0).Anonymous {
			return false
		}
		kind = kind.Field(0).Type
	}
}

// concerns compares the objects that an event names, and what is above them in the inventory.
func (c *EventCollector) concerns(event types.BaseEvent, of *types.EventFilterSpecByEntity) bool {
	e := event.GetEvent()
	var named []types.ManagedObjectReference
	if e.Vm != nil {
		named = append(named, e.Vm.Vm)
	}
	if e.Host != nil {
		named = append(named, e.Host.Host)
	}
	if e.ComputeResource != nil {
		named = append(named, e.ComputeResource.ComputeResource)
	}
	if e.Ds != nil {
		named = append(named, e.Ds.Datastore)
	}
	if e.Net != nil {
		named = append(named, e.Net.Network)
	}
	if e.Datacenter != nil {
		named = append(named, e.Datacenter.Datacenter)
	}
	self := slices.Contains(named, of.Entity)
	switch of.Recursion {
	case types.EventFilterSpecRecursionOptionSelf:
		return self
	case types.EventFilterSpecRecursionOptionChildren:
		return slices.ContainsFunc(named, func(r types.ManagedObjectReference) bool { return c.above(r, of.Entity) })
	}
	root := c.log.lab.service.Context.Map.Get(of.Entity)
	if f, ok := root.(*simulator.Folder); ok && f.Parent == nil {
		return true
	}
	return self || slices.ContainsFunc(named, func(r types.ManagedObjectReference) bool { return c.above(r, of.Entity) })
}

// above says whether an object of the inventory is somewhere over another. A VM is below its folder and its host.
func (c *EventCollector) above(ref, what types.ManagedObjectReference) bool {
	reg := c.log.lab.service.Context.Map
	for range 64 {
		entity, ok := reg.Get(ref).(mo.Entity)
		if !ok {
			return false
		}
		if vm, ok := entity.(*simulator.VirtualMachine); ok && vm.Runtime.Host != nil && (*vm.Runtime.Host == what ||
			c.above(*vm.Runtime.Host, what)) {
			return true
		}
		parent := entity.Entity().Parent
		if parent == nil {
			return false
		}
		if *parent == what {
			return true
		}
		ref = *parent
	}
	return false
}

// storm: POST /events/storm?count=&rate=: so many events (GeneralUserEvent, "storm 1", "storm 2" …) at so many a second; it answers at the
// end, with how long that took and the keys of the first and the last.
func (l *Lab) storm(w http.ResponseWriter, r *http.Request) {
	count, rate := number(r, "count", 1000), float64(number(r, "rate", 1000))
	if count < 1 || count > maxEvents/2 || rate <= 0 {
		http.Error(w, fmt.Sprintf("count is 1 to %d, rate is above 0", maxEvents/2), http.StatusBadRequest)
		return
	}
	sim, start := l.context(), time.Now()
	var first, last int32
	for i := int64(1); i <= count; i++ {
		if early := time.Duration(float64(i-1)/rate*float64(time.Second)) - time.Since(start); early > time.Millisecond {
			time.Sleep(early)
		}
		e := &types.GeneralUserEvent{GeneralEvent: types.GeneralEvent{Message: fmt.Sprintf("storm %d", i)}}
		e.Datacenter = &types.DatacenterEventArgument{EntityEventArgument: types.EntityEventArgument{Name: l.dc.Name}, Datacenter: l.dc.Self}
		l.post(sim, e)
		if last = e.Key; first == 0 {
			first = e.Key
		}
	}
	answer(w, map[string]any{"posted": count, "seconds": time.Since(start).Seconds(), "first": first, "last": last})
}
