// Copyright (c) 2026, ferry.vmware contributors
// GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
// SPDX-License-Identifier: GPL-3.0-or-later

package main

import (
	"net"
	"net/http"
	"sync"
	"time"
)

// connections of the https port, so that a restart of vCenter can end them.
type connections struct {
	mu    sync.Mutex
	open  map[net.Conn]bool
	until time.Time // none is taken before
}

// follow is http.Server.ConnState.
func (c *connections) follow(conn net.Conn, state http.ConnState) {
	c.mu.Lock()
	defer c.mu.Unlock()
	switch state {
	case http.StateNew:
		if time.Now().Before(c.until) {
			_ = conn.Close()
			return
		}
		if c.open == nil {
			c.open = map[net.Conn]bool{}
		}
		c.open[conn] = true
	case http.StateClosed, http.StateHijacked:
		delete(c.open, conn)
	}
}

func (c *connections) drop(away time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.until = time.Now().Add(away)
	for conn := range c.open {
		_ = conn.Close()
	}
}

// restart is what clients see of a restart of vpxd: every session and connection ends, and for a time none is taken. The VMs go on,
// with their snapshots; a consolidation goes on too, since the host does it.
func (l *Lab) restart(seconds float64) int {
	n := l.expireSessions()
	l.conns.drop(time.Duration(seconds * float64(time.Second)))
	return n
}
