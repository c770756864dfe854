// Copyright (c) 2026, ferry.vmware contributors
// GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
// SPDX-License-Identifier: GPL-3.0-or-later

package main

import (
	"github.com/vmware/govmomi/simulator"
	"github.com/vmware/govmomi/vim25/soap"
	"github.com/vmware/govmomi/vim25/types"
)

// PropertyCollector is the simulator's, told of changes by us. The simulator keeps one listener per reference, and the property collectors
// of all sessions have the same: of two clients that wait at once, one would wait for ever.
type PropertyCollector struct {
	*simulator.PropertyCollector
	lab *Lab
}

func (p *PropertyCollector) WaitForUpdatesEx(ctx *simulator.Context, req *types.WaitForUpdatesEx) soap.HasFault {
	defer p.follow(ctx, req.Version)()
	return p.PropertyCollector.WaitForUpdatesEx(ctx, req)
}

func (p *PropertyCollector) WaitForUpdates(ctx *simulator.Context, req *types.WaitForUpdates) soap.HasFault {
	defer p.follow(ctx, req.Version)()
	return p.PropertyCollector.WaitForUpdates(ctx, req)
}

// follow begins to tell a collector of changes where it starts anew, in the place of the registry.
func (p *PropertyCollector) follow(ctx *simulator.Context, version string) func() {
	if version != "" {
		return func() {}
	}
	w := p.lab.wrappers
	w.mu.Lock()
	for other, session := range w.collectors {
		if session != ctx.Session.Key && !p.lab.alive(session) {
			delete(w.collectors, other)
		}
	}
	w.collectors[p.PropertyCollector] = ctx.Session.Key
	w.mu.Unlock()
	return func() { ctx.Map.RemoveHandler(p.PropertyCollector) }
}

// listeners are the collectors that clients wait with.
func (w *Wrappers) listeners() []*simulator.PropertyCollector {
	w.mu.Lock()
	defer w.mu.Unlock()
	list := make([]*simulator.PropertyCollector, 0, len(w.collectors))
	for p := range w.collectors {
		list = append(list, p)
	}
	return list
}
