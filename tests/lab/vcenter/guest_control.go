// Copyright (c) 2026, ferry.vmware contributors
// GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
// SPDX-License-Identifier: GPL-3.0-or-later

package main

import (
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"path"
	"slices"
	"strconv"

	"github.com/vmware/govmomi/simulator"
)

// maxWrite bounds one write of the guest, in bytes.
const maxWrite = 64 << 20

// named finds a VM by its name or its MoRef.
func (l *Lab) named(name string) (vm *simulator.VirtualMachine, g *Guest, err error) {
	ctx := l.context()
	l.guestsMu.Lock()
	for ref, known := range l.guests {
		if known.name == name || ref.Value == name {
			vm, _ = ctx.Map.Get(ref).(*simulator.VirtualMachine)
			g = known
		}
	}
	l.guestsMu.Unlock()
	if vm != nil {
		return vm, g, nil
	}
	for _, e := range ctx.Map.All("VirtualMachine") {
		if x := e.(*simulator.VirtualMachine); x.Name == name || x.Self.Value == name {
			ctx.WithLock(x, func() { g, err = l.guest(&x.VirtualMachine) })
			return x, g, err
		}
	}
	return nil, nil, fmt.Errorf("no VM %q", name)
}

var errNotRunning = errors.New("the VM does not run")

// guestWrite is one write, all or nothing, at one moment.
func (l *Lab) guestWrite(g *Guest, key int32, off int64, p []byte) (int64, error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if !g.running {
		return g.sequence, errNotRunning
	}
	v := g.disks[key]
	if v == nil {
		return g.sequence, fmt.Errorf("no disk %d", key)
	}
	if err := v.write(p, off, !(g.merging && l.switches.On("cbt_consolidation_misses", g.name, key))); err != nil {
		return g.sequence, err
	}
	g.sequence++
	return g.sequence, nil
}

// guestRoutes are what a test does as the guest would, and what it compares with.
func (l *Lab) guestRoutes(mux *http.ServeMux) {
	with := func(f func(w http.ResponseWriter, r *http.Request, vm *simulator.VirtualMachine, g *Guest) error) http.HandlerFunc {
		return func(w http.ResponseWriter, r *http.Request) {
			vm, g, err := l.named(r.URL.Query().Get("vm"))
			status := http.StatusNotFound
			if err == nil {
				status = http.StatusBadRequest
				err = f(w, r, vm, g)
			}
			if errors.Is(err, errNotRunning) {
				status = http.StatusConflict
			}
			if err != nil {
				http.Error(w, err.Error(), status)
			}
		}
	}
	mux.HandleFunc("POST /guest/write", with(l.postWrite))
	mux.HandleFunc("POST /guest/writes", with(l.postWrites))
	mux.HandleFunc("GET /guest", with(func(w http.ResponseWriter, _ *http.Request, _ *simulator.VirtualMachine, g *Guest) error {
		g.mu.Lock()
		defer g.mu.Unlock()
		writes, capacity := map[string]int64{}, map[string]int64{}
		for key, v := range g.disks {
			writes[fmt.Sprint(key)], capacity[fmt.Sprint(key)] = v.writes, v.capacity
		}
		answer(w, map[string]any{"vm": g.name, "moref": g.ref.Value, "running": g.running, "count": g.sequence, "writes": writes, "capacity": capacity})
		return nil
	}))
	mux.HandleFunc("GET /guest/disk", with(l.guestDisk))
	mux.HandleFunc("GET /snapshots", with(l.getSnapshots))
	mux.HandleFunc("POST /host", func(w http.ResponseWriter, r *http.Request) {
		q := r.URL.Query()
		if !l.setProduct(q.Get("name"), Product{Version: q.Get("version"), Build: q.Get("build")}) {
			http.Error(w, fmt.Sprintf("no host %q", q.Get("name")), http.StatusNotFound)
			return
		}
		answer(w, map[string]any{})
	})
	mux.HandleFunc("POST /restart", func(w http.ResponseWriter, r *http.Request) {
		seconds, err := strconv.ParseFloat(r.URL.Query().Get("seconds"), 64)
		if err != nil || seconds < 0 {
			seconds = 1
		}
		answer(w, map[string]any{"expired": l.restart(seconds)})
	})
	mux.HandleFunc("POST /cbt/reset", with(func(w http.ResponseWriter, r *http.Request, vm *simulator.VirtualMachine, g *Guest) error {
		answer(w, map[string]any{"disks": l.cbtChange(vm, g, int32(number(r, "disk", 0)), (*Track).reset)})
		return nil
	}))
	mux.HandleFunc("POST /cbt/lower", with(func(w http.ResponseWriter, r *http.Request, vm *simulator.VirtualMachine, g *Guest) error {
		answer(w, map[string]any{"disks": l.cbtChange(vm, g, int32(number(r, "disk", 0)), func(t *Track) { t.lower(t.seq - number(r, "by", 2)) })})
		return nil
	}))
}

func number(r *http.Request, name string, otherwise int64) int64 {
	if n, err := strconv.ParseInt(r.URL.Query().Get(name), 10, 64); err == nil {
		return n
	}
	return otherwise
}

// postWrite: POST /guest/write?vm=NAME&disk=KEY&offset=N with the bytes as body.
func (l *Lab) postWrite(w http.ResponseWriter, r *http.Request, _ *simulator.VirtualMachine, g *Guest) error {
	p, err := io.ReadAll(http.MaxBytesReader(w, r.Body, maxWrite))
	if err != nil {
		return err
	}
	n, err := l.guestWrite(g, int32(number(r, "disk", 0)), number(r, "offset", -1), p)
	if err == nil {
		answer(w, map[string]any{"count": n})
	}
	return err
}

// postWrites: POST /guest/writes?vm=NAME: any number of frames of disk (4 bytes), offset (8), length (4), all big-endian, and the
// bytes. Each is a write of its own; the answer tells the sequence number of the last, also where the VM was powered off between.
func (l *Lab) postWrites(w http.ResponseWriter, r *http.Request, _ *simulator.VirtualMachine, g *Guest) error {
	done := 0
	for {
		var head [16]byte
		_, err := io.ReadFull(r.Body, head[:])
		last := int64(0)
		if err == nil {
			length := binary.BigEndian.Uint32(head[12:])
			if length > maxWrite {
				return fmt.Errorf("a write of %d bytes", length)
			}
			p := make([]byte, length)
			if _, err = io.ReadFull(r.Body, p); err != nil {
				return err
			}
			last, err = l.guestWrite(g, int32(binary.BigEndian.Uint32(head[:])), int64(binary.BigEndian.Uint64(head[4:])), p)
			if err == nil {
				done++
				continue
			}
		}
		if errors.Is(err, io.EOF) || errors.Is(err, errNotRunning) {
			g.mu.Lock()
			last = g.sequence
			g.mu.Unlock()
			if errors.Is(err, errNotRunning) {
				w.Header().Set("Content-Type", "application/json")
				w.WriteHeader(http.StatusConflict)
			}
			_ = json.NewEncoder(w).Encode(map[string]any{"count": last, "done": done})
			return nil
		}
		return err
	}
}

// guestDisk: GET /guest/disk?vm=&disk=&snapshot=&hash=sha256: the bytes of a disk at a snapshot, or now.
func (l *Lab) guestDisk(w http.ResponseWriter, r *http.Request, _ *simulator.VirtualMachine, g *Guest) error {
	key, snapshot := int32(number(r, "disk", 0)), r.URL.Query().Get("snapshot")
	g.mu.Lock()
	layer, capacity, err := g.at(key, snapshot)
	if err != nil {
		g.mu.Unlock()
		return err
	}
	if snapshot == "" {
		defer g.mu.Unlock() // one moment for all of it: the guest waits
	} else {
		g.mu.Unlock()
	}
	hash := sha256.New()
	var out io.Writer = hash
	if r.URL.Query().Get("hash") == "" {
		w.Header().Set("Content-Length", fmt.Sprint(capacity))
		w.Header().Set("Content-Type", "application/octet-stream")
		out = w
	}
	buffer := make([]byte, 1<<20)
	for off := int64(0); off < capacity; off += int64(len(buffer)) {
		p := buffer[:min(int64(len(buffer)), capacity-off)]
		if snapshot != "" { // its layer may be merged meanwhile
			g.mu.Lock()
			if layer, _, err = g.at(key, snapshot); err == nil {
				err = layer.ReadAt(p, off)
			}
			g.mu.Unlock()
		} else {
			err = layer.ReadAt(p, off)
		}
		if err == nil {
			_, err = out.Write(p)
		}
		if err != nil {
			if out == io.Writer(w) {
				panic(http.ErrAbortHandler)
			}
			return err
		}
	}
	if out == io.Writer(hash) {
		answer(w, map[string]any{"sha256": hex.EncodeToString(hash.Sum(nil)), "capacity": capacity})
	}
	return nil
}

// at finds what a disk is at a snapshot (name or MoRef), or now; the caller holds mu.
func (g *Guest) at(key int32, snapshot string) (*Layer, int64, error) {
	if snapshot == "" {
		if v := g.disks[key]; v != nil {
			return v.top, v.capacity, nil
		}
		return nil, 0, fmt.Errorf("no disk %d", key)
	}
	for _, f := range g.snaps {
		if d := f.disks[key]; d != nil && (f.ref.Value == snapshot || f.name == snapshot) {
			return d.layer, d.capacity, nil
		}
	}
	return nil, 0, fmt.Errorf("no disk %d in a snapshot %q", key, snapshot)
}

// getSnapshots: GET /snapshots?vm=: what each snapshot froze, in the order of their creation.
func (l *Lab) getSnapshots(w http.ResponseWriter, _ *http.Request, _ *simulator.VirtualMachine, g *Guest) error {
	type disk struct {
		Key      int32    `json:"key"`
		Capacity int64    `json:"capacity"`
		Files    []string `json:"files"` // extents in the datastores, the newest first
		Local    []string `json:"local"`
		Writes   int64    `json:"writes"`
		ChangeID string   `json:"change_id"`
	}
	type snapshot struct {
		MoRef    string `json:"moref"`
		Name     string `json:"name"`
		Created  string `json:"created"`
		Sequence int64  `json:"sequence"`
		Disks    []disk `json:"disks"`
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	frozen := make([]*Frozen, 0, len(g.snaps))
	for _, f := range g.snaps {
		frozen = append(frozen, f)
	}
	slices.SortFunc(frozen, func(a, b *Frozen) int { return a.created.Compare(b.created) })
	out := []snapshot{}
	for _, f := range frozen {
		s := snapshot{MoRef: f.ref.Value, Name: f.name, Created: f.created.UTC().Format("2006-01-02T15:04:05.000000Z"), Sequence: f.sequence, Disks: []disk{}}
		keys := make([]int32, 0, len(f.disks))
		for k := range f.disks {
			keys = append(keys, k)
		}
		slices.Sort(keys)
		for _, k := range keys {
			d := f.disks[k]
			x := disk{Key: k, Capacity: d.capacity, Writes: d.writes, ChangeID: d.changeID()}
			for layer := d.layer; layer != nil; layer = layer.parent {
				name := extentName(layer.name, layer.format)
				x.Files = append(x.Files, name)
				x.Local = append(x.Local, path.Clean(l.localPath(name)))
			}
			s.Disks = append(s.Disks, x)
		}
		out = append(out, s)
	}
	answer(w, map[string]any{"vm": g.name, "snapshots": out, "consolidation_needed": g.stale, "busy": g.busy.Load()})
	return nil
}
