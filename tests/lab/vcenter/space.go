// Copyright (c) 2026, ferry.vmware contributors
// GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
// SPDX-License-Identifier: GPL-3.0-or-later

package main

import (
	"fmt"
	"net/http"

	"github.com/vmware/govmomi/simulator"
	"github.com/vmware/govmomi/vim25/types"
)

// storeChanged computes a datastore's free space anew, tells it to clients that wait for updates, and posts the event of the usage alarm.
// References: DatastoreSummary.freeSpace; AlarmStatusChangedEvent; the predefined alarm "Datastore usage on disk": yellow above 75 %, red
// above 85 %. No lock of the datastore may be held.
func (l *Lab) storeChanged(sim *simulator.Context, s *DatastoreState) {
	ds, ok := sim.Map.Get(s.Ref).(*simulator.Datastore)
	if !ok {
		return
	}
	sim.WithLock(ds, func() {
		l.refreshDatastore(s)
		sim.Update(ds, []types.PropertyChange{{Name: "summary.freeSpace", Val: ds.Summary.FreeSpace},
			{Name: "summary.uncommitted", Val: ds.Summary.Uncommitted}})
	})
	status := types.ManagedEntityStatusGreen
	switch used := 100 * float64(s.Model.Capacity-ds.Summary.FreeSpace) / float64(s.Model.Capacity); {
	case used > 85:
		status = types.ManagedEntityStatusRed
	case used > 75:
		status = types.ManagedEntityStatusYellow
	}
	old, _ := s.alarm.Swap(status).(types.ManagedEntityStatus)
	if old == "" {
		old = types.ManagedEntityStatusGreen
	}
	if old == status {
		return
	}
	sim.WithLock(ds, func() { sim.Update(ds, []types.PropertyChange{{Name: "overallStatus", Val: status}}) })
	entity := types.ManagedEntityEventArgument{EntityEventArgument: types.EntityEventArgument{Name: ds.Name}, Entity: ds.Self}
	event := &types.AlarmStatusChangedEvent{Source: entity, Entity: entity, From: string(old), To: string(status)}
	event.Alarm = types.AlarmEventArgument{EntityEventArgument: types.EntityEventArgument{Name: "Datastore usage on disk"},
		Alarm: types.ManagedObjectReference{Type: "Alarm", Value: "alarm-8"}}
	event.Ds = &types.DatastoreEventArgument{EntityEventArgument: types.EntityEventArgument{Name: ds.Name}, Datastore: ds.Self}
	event.Datacenter = &types.DatacenterEventArgument{EntityEventArgument: types.EntityEventArgument{Name: l.dc.Name}, Datacenter: l.dc.Self}
	l.post(sim, event)
}

// moveRoutes are what a test does to hosts and datastores.
func (l *Lab) moveRoutes(mux *http.ServeMux) {
	host := func(do func(name string, r *http.Request) error) http.HandlerFunc {
		return func(w http.ResponseWriter, r *http.Request) {
			if err := do(r.URL.Query().Get("host"), r); err != nil {
				http.Error(w, err.Error(), http.StatusBadRequest)
				return
			}
			answer(w, map[string]any{})
		}
	}
	mux.HandleFunc("POST /host/die", host(func(name string, r *http.Request) error { return l.die(name, r.URL.Query().Get("vms")) }))
	mux.HandleFunc("POST /host/back", host(func(name string, _ *http.Request) error { return l.back(name) }))
	mux.HandleFunc("POST /events/storm", l.storm)
	mux.HandleFunc("GET /locks", func(w http.ResponseWriter, _ *http.Request) { answer(w, map[string]any{"locks": l.locks.List()}) })
	mux.HandleFunc("POST /datastore/fill", func(w http.ResponseWriter, r *http.Request) {
		s := l.datastores[r.URL.Query().Get("datastore")]
		free := number(r, "free", -1)
		if s == nil || free < 0 || free > s.Model.Capacity {
			http.Error(w, fmt.Sprintf("no datastore %q, or free is no number of bytes up to its capacity", r.URL.Query().Get("datastore")),
				http.StatusBadRequest)
			return
		}
		used, _ := l.usage(s)
		s.filled.Store(s.Model.Capacity - used - free)
		l.storeChanged(l.context(), s)
		answer(w, map[string]any{"free": l.free(s)})
	})
}
