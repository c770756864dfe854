// Copyright (c) 2026, ferry.vmware contributors
// GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
// SPDX-License-Identifier: GPL-3.0-or-later

package main

import (
	"bytes"
	"encoding/json"
	"io"
	"net/http"
	"strings"
	"sync"

	"github.com/vmware/govmomi/simulator"
	"github.com/vmware/govmomi/vim25/types"
)

// Stats is what tests need to prove what was read, and how often.
type Stats struct {
	mu       sync.Mutex
	files    map[string]*FileStats
	methods  map[string]int
	requests int
	noted    map[string]int
}

type FileStats struct {
	Bytes    int64 `json:"bytes"`
	Requests int   `json:"requests"`
}

func NewStats() *Stats {
	s := &Stats{}
	s.Reset()
	return s
}

func (s *Stats) Reset() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.files, s.methods, s.noted, s.requests = map[string]*FileStats{}, map[string]int{}, map[string]int{}, 0
}

func (s *Stats) file(name string) *FileStats {
	f, ok := s.files[name]
	if !ok {
		f = &FileStats{}
		s.files[name] = f
	}
	return f
}

// Request counts one request for "[datastore] file".
func (s *Stats) Request(name string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.requests++
	s.file(name).Requests++
}

func (s *Stats) Bytes(name string, n int64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.file(name).Bytes += n
}

func (s *Stats) Method(name string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.methods[name]++
}

func (s *Stats) Note(name string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.noted[name]++
}

func (s *Stats) MarshalJSON() ([]byte, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return json.Marshal(map[string]any{"folder_requests": s.requests, "files": s.files, "methods": s.methods, "faults": s.noted})
}

// Front is the https server: SOAP at /sdk, files at /folder, and what else the simulator has (guest files, NFC).
func (l *Lab) Front() http.Handler {
	mux := l.service.ServeMux
	mux.HandleFunc("/sdk/vimServiceVersions.xml", l.service.ServiceVersions)
	mux.HandleFunc("/about", l.service.About)
	mux.HandleFunc("/guestFile/", simulator.ServeGuest)
	mux.HandleFunc("/nfc/", l.NFC)
	tagging := l.Tagging()
	mux.Handle("/rest/", tagging)
	mux.Handle("/api/", tagging)
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch {
		case r.URL.Path == "/folder" || strings.HasPrefix(r.URL.Path, "/folder/"):
			l.Folder(w, r)
		case strings.HasPrefix(r.URL.Path, "/sdk"):
			l.soap(w, r)
		default:
			mux.ServeHTTP(w, r)
		}
	})
}

// soap passes a request on. One answer is put right: the simulator answers a Fetch of an unset property with the body of
// RetrievePropertiesEx; the product answers with a FetchResponse without a value, which pyvmomi reads as None.
func (l *Lab) soap(w http.ResponseWriter, r *http.Request) {
	if f := l.faults.Take("soap_down", r.URL.Path); f != nil {
		http.Error(w, http.StatusText(f.Status), f.Status)
		return
	}
	if r.Method != http.MethodPost {
		l.service.ServeMux.ServeHTTP(w, r)
		return
	}
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, 64<<20))
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	r.Body = io.NopCloser(bytes.NewReader(body))
	if !bytes.Contains(body, []byte("<Fetch ")) && !bytes.Contains(body, []byte(":Fetch ")) {
		l.service.ServeMux.ServeHTTP(w, r)
		return
	}
	out := &heldResponse{ResponseWriter: w}
	l.service.ServeMux.ServeHTTP(out, r)
	answer := out.body.Bytes()
	if at := bytes.Index(answer, []byte("<RetrievePropertiesExResponse")); at >= 0 {
		const end = "</RetrievePropertiesExResponse>"
		if to := bytes.Index(answer, []byte(end)); to > at {
			answer = append(append(bytes.Clone(answer[:at]), []byte(`<FetchResponse xmlns="urn:vim25"></FetchResponse>`)...), answer[to+len(end):]...)
		}
	}
	if out.status != 0 {
		w.WriteHeader(out.status)
	}
	_, _ = w.Write(answer)
}

type heldResponse struct {
	http.ResponseWriter
	status int
	body   bytes.Buffer
}

func (h *heldResponse) WriteHeader(status int)      { h.status = status }
func (h *heldResponse) Write(p []byte) (int, error) { return h.body.Write(p) }

func answer(w http.ResponseWriter, v any) {
	w.Header().Set("Content-Type", "application/json")
	_ = json.NewEncoder(w).Encode(v)
}

// Control is the lab's own port: GET /state, GET and DELETE /stats, GET, POST and DELETE /faults.
func (l *Lab) Control() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /state", func(w http.ResponseWriter, _ *http.Request) { answer(w, l.state()) })
	mux.HandleFunc("GET /stats", func(w http.ResponseWriter, _ *http.Request) { answer(w, l.stats) })
	mux.HandleFunc("DELETE /stats", func(w http.ResponseWriter, _ *http.Request) { l.stats.Reset(); answer(w, map[string]any{}) })
	mux.HandleFunc("GET /faults", func(w http.ResponseWriter, _ *http.Request) {
		answer(w, map[string]any{"kinds": faultKinds, "faults": l.faults.List()})
	})
	mux.HandleFunc("DELETE /faults", func(w http.ResponseWriter, _ *http.Request) { l.faults.Clear(); answer(w, map[string]any{}) })
	mux.HandleFunc("POST /faults", func(w http.ResponseWriter, r *http.Request) {
		fault := &Fault{}
		d := json.NewDecoder(http.MaxBytesReader(w, r.Body, 1<<20))
		d.DisallowUnknownFields()
		if err := d.Decode(fault); err != nil {
			http.Error(w, err.Error(), http.StatusBadRequest)
			return
		}
		if fault.Kind == "session_expire" && fault.Match == "" {
			answer(w, map[string]any{"expired": l.expireSessions()})
			return
		}
		if err := l.faults.Add(fault); err != nil {
			http.Error(w, err.Error(), http.StatusBadRequest)
			return
		}
		answer(w, fault)
	})
	mux.HandleFunc("GET /switches", func(w http.ResponseWriter, _ *http.Request) {
		answer(w, map[string]any{"names": switchNames, "switches": l.switches.List()})
	})
	mux.HandleFunc("DELETE /switches", func(w http.ResponseWriter, _ *http.Request) { l.switches.Clear(); answer(w, map[string]any{}) })
	mux.HandleFunc("POST /switches", func(w http.ResponseWriter, r *http.Request) {
		var x Switch
		d := json.NewDecoder(http.MaxBytesReader(w, r.Body, 1<<20))
		d.DisallowUnknownFields()
		err := d.Decode(&x)
		if err == nil {
			err = l.switches.Set(x)
		}
		if err != nil {
			http.Error(w, err.Error(), http.StatusBadRequest)
			return
		}
		answer(w, x)
	})
	l.guestRoutes(mux)
	l.moveRoutes(mux)
	return mux
}

// state is what the lab holds now: also of VMs that a client made.
func (l *Lab) state() map[string]any {
	type disk struct {
		Key      int32  `json:"key"`
		Label    string `json:"label"`
		File     string `json:"file"`
		Capacity int64  `json:"capacity"`
		Local    string `json:"local"`
	}
	type vm struct {
		Name  string `json:"name"`
		MoRef string `json:"moref"`
		UUID  string `json:"uuid"`
		Power string `json:"power"`
		Tools string `json:"tools"`
		Host  string `json:"host"`
		VMX   string `json:"vmx"`
		Disks []disk `json:"disks"`
	}
	ctx := l.context()
	vms := []vm{}
	for _, e := range ctx.Map.All("VirtualMachine") {
		m := e.(*simulator.VirtualMachine)
		ctx.WithLock(m, func() {
			x := vm{Name: m.Name, MoRef: m.Self.Value, UUID: m.Config.InstanceUuid, Power: string(m.Runtime.PowerState), Disks: []disk{}}
			if m.Runtime.Host != nil {
				x.Host = l.nameOf(*m.Runtime.Host)
			}
			x.VMX = m.Config.Files.VmPathName
			if m.Guest != nil {
				x.Tools = m.Guest.ToolsRunningStatus
			}
			for _, d := range flatDisks(m.Config.Hardware.Device) {
				b := d.Backing.(*types.VirtualDiskFlatVer2BackingInfo)
				x.Disks = append(x.Disks, disk{d.Key, d.DeviceInfo.GetDescription().Label, b.FileName, d.CapacityInBytes, l.localPath(backingExtent(b))})
			}
			vms = append(vms, x)
		})
	}
	return map[string]any{"ready": true, "datacenter": l.config.Model.Datacenter, "vms": vms, "faults": l.faults.List(), "switches": l.switches.List()}
}
