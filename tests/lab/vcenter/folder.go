// Copyright (c) 2026, ferry.vmware contributors
// GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
// SPDX-License-Identifier: GPL-3.0-or-later

package main

import (
	"crypto/subtle"
	"errors"
	"fmt"
	"html"
	"io"
	"io/fs"
	"net/http"
	"net/url"
	"os"
	"path"
	"path/filepath"
	"sort"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/vmware/govmomi/simulator"
	"github.com/vmware/govmomi/vim25/methods"
	"github.com/vmware/govmomi/vim25/soap"
	"github.com/vmware/govmomi/vim25/types"
)

// Folder serves files of datastores. Reference: vSphere Web Services SDK Programming Guide, appendix "HTTP Access to vSphere
// Server Files": "Datastore Access (/folder)" has the syntax (path, dcPath, dsName; GET, HEAD, PUT, DELETE; listings of
// datacenters, datastores and folders), "Privilege Requirements for HTTP Access" the need of a session; a client sends the
// session's cookie vmware_soap_session, or user and password by HTTP Basic.
func (l *Lab) Folder(w http.ResponseWriter, r *http.Request) {
	name := path.Clean("/" + strings.TrimPrefix(r.URL.Path, "/folder"))
	ds, known := l.datastores[r.URL.Query().Get("dsName")]
	l.stats.Request(l.datastoreName(ds, name))
	if f := l.faults.Take("folder_delay", r.URL.Path); f != nil {
		time.Sleep(time.Duration(f.DelayMS) * time.Millisecond)
	}
	if l.faults.Take("session_expire", r.URL.Path) != nil {
		l.expireSessions()
	}
	if !l.authorized(r) {
		w.Header().Set("WWW-Authenticate", `Basic realm="VMware HTTP server"`)
		http.Error(w, "401 Unauthorized", http.StatusUnauthorized)
		return
	}
	if f := l.faults.Take("folder_status", r.URL.Path); f != nil {
		if f.RetryAfter > 0 {
			w.Header().Set("Retry-After", fmt.Sprint(f.RetryAfter))
		}
		http.Error(w, http.StatusText(f.Status), f.Status)
		return
	}
	q := r.URL.Query()
	dc := strings.Trim(q.Get("dcPath"), "/")
	if dc == "" && name == "/" {
		listing(w, "Index of datacenters", []string{"?dcPath=" + url.QueryEscape(l.config.Model.Datacenter)}, []string{l.config.Model.Datacenter})
		return
	}
	if dc != l.config.Model.Datacenter {
		http.NotFound(w, r)
		return
	}
	if q.Get("dsName") == "" && name == "/" {
		var links, names []string
		for n := range l.datastores {
			names = append(names, n)
		}
		sort.Strings(names)
		for _, n := range names {
			links = append(links, "?dcPath="+url.QueryEscape(dc)+"&dsName="+url.QueryEscape(n))
		}
		listing(w, "Index of datastores on "+dc, links, names)
		return
	}
	if !known {
		http.NotFound(w, r)
		return
	}
	local := filepath.Join(ds.Folder, filepath.FromSlash(name))
	switch r.Method {
	case http.MethodGet, http.MethodHead:
		l.get(w, r, ds, local, name)
	case http.MethodPut:
		l.put(w, r, local)
	case http.MethodDelete:
		if err := os.Remove(local); err != nil {
			fileError(w, err)
		}
	default:
		w.Header().Set("Allow", "GET, HEAD, PUT, DELETE")
		http.Error(w, "405 Method Not Allowed", http.StatusMethodNotAllowed)
	}
}

func fileError(w http.ResponseWriter, err error) {
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, syscall.ENOTDIR) {
		http.Error(w, "404 Not Found", http.StatusNotFound)
		return
	}
	http.Error(w, "500 Internal Server Error", http.StatusInternalServerError)
}

// authorized: the cookie of a live session, or the lab's user and password.
func (l *Lab) authorized(r *http.Request) bool {
	if cookie, err := r.Cookie(soap.SessionCookieName); err == nil {
		manager := l.service.Context.Map.SessionManager()
		res := manager.SessionIsActive(l.context(), &types.SessionIsActive{SessionID: cookie.Value, UserName: l.config.User})
		if body, ok := res.(*methods.SessionIsActiveBody); ok && body.Res != nil && body.Res.Returnval {
			return true
		}
	}
	user, password, ok := r.BasicAuth()
	return ok && subtle.ConstantTimeCompare([]byte(user), []byte(l.config.User)) == 1 &&
		subtle.ConstantTimeCompare([]byte(password), []byte(l.config.Password)) == 1
}

func (l *Lab) get(w http.ResponseWriter, r *http.Request, ds *DatastoreState, local, name string) {
	f, err := os.Open(local)
	if err != nil {
		fileError(w, err)
		return
	}
	defer f.Close()
	st, err := f.Stat()
	if err != nil {
		fileError(w, err)
		return
	}
	if st.IsDir() {
		l.list(w, ds, local, name)
		return
	}
	if status := l.config.Model.Behaviour.LockedStatus; status != 0 && l.locks.Locked(local) {
		// VMFS locks the files of a running VM (vSphere Storage, "VMFS Locking Mechanisms"); the host cannot open them for us.
		http.Error(w, http.StatusText(status), status)
		return
	}
	ino := st.Sys().(*syscall.Stat_t).Ino
	tag := fmt.Sprintf("%x-%x-%x", ino, st.Size(), st.ModTime().UnixNano())
	if l.faults.Take("folder_etag", r.URL.Path) != nil {
		tag += "-changed"
	}
	w.Header().Set("ETag", `"`+tag+`"`)
	w.Header().Set("Accept-Ranges", "bytes")
	w.Header().Set("Content-Type", "application/octet-stream")
	if r.Method == http.MethodGet {
		if fault := l.faults.Take("folder_short", r.URL.Path); fault != nil && shorten(r, fault.AfterBytes, st.Size()) {
			l.stats.Note("folder_short")
		}
	}
	out := &countingWriter{ResponseWriter: w, lab: l, name: l.datastoreName(ds, name), match: r.URL.Path}
	defer func() {
		if out.cut {
			panic(http.ErrAbortHandler) // net/http closes the connection in the middle of the body
		}
	}()
	http.ServeContent(out, r, "", st.ModTime(), f)
}

// shorten asks for fewer bytes than the client did, so that the answer is a well-formed 206 of a shorter range.
func shorten(r *http.Request, length, size int64) bool {
	var first, last int64
	if n, _ := fmt.Sscanf(r.Header.Get("Range"), "bytes=%d-%d", &first, &last); n < 2 {
		if n, _ = fmt.Sscanf(r.Header.Get("Range"), "bytes=%d-", &first); n < 1 {
			return false
		}
		last = size - 1
	}
	if length <= 0 || first+length > last {
		return false
	}
	r.Header.Set("Range", fmt.Sprintf("bytes=%d-%d", first, first+length-1))
	return true
}

func (l *Lab) datastoreName(ds *DatastoreState, name string) string {
	if ds == nil {
		return name
	}
	return fmt.Sprintf("[%s] %s", ds.Model.Name, strings.TrimPrefix(name, "/"))
}

// countingWriter counts what is served of each file and cuts the connection where a fault wants it.
type countingWriter struct {
	http.ResponseWriter
	lab   *Lab
	name  string
	match string
	cut   bool
}

func (c *countingWriter) Write(p []byte) (int, error) {
	if c.cut {
		return 0, errors.New("connection cut")
	}
	n := c.lab.faults.Cut(c.match, len(p))
	if n < len(p) {
		c.cut = true
		c.lab.stats.Note("folder_cut")
	}
	written, err := c.ResponseWriter.Write(p[:n])
	c.lab.stats.Bytes(c.name, int64(written))
	if c.cut {
		if f, ok := c.ResponseWriter.(http.Flusher); ok {
			f.Flush()
		}
		return written, errors.New("connection cut")
	}
	return written, err
}

var buffers = sync.Pool{New: func() any { return new([256 << 10]byte) }}

// ReadFrom is what io.CopyN of http.ServeContent calls: fewer and larger steps than its own 32 KiB.
func (c *countingWriter) ReadFrom(r io.Reader) (total int64, err error) {
	buffer := buffers.Get().(*[256 << 10]byte)
	defer buffers.Put(buffer)
	for {
		n, readErr := r.Read(buffer[:])
		if n > 0 {
			written, err := c.Write(buffer[:n])
			total += int64(written)
			if err != nil {
				return total, err
			}
		}
		if readErr == io.EOF {
			return total, nil
		} else if readErr != nil {
			return total, readErr
		}
	}
}

func (l *Lab) put(w http.ResponseWriter, r *http.Request, local string) {
	_, err := os.Stat(local)
	existed := err == nil
	if err = os.MkdirAll(filepath.Dir(local), 0o700); err != nil {
		fileError(w, err)
		return
	}
	// A new file takes the name: the old one may be a hard link to a file of the model.
	f, err := os.CreateTemp(filepath.Dir(local), ".put-*")
	if err == nil {
		_, err = io.Copy(f, r.Body)
		err = errors.Join(err, f.Close())
		if err == nil {
			err = os.Rename(f.Name(), local)
		}
		if err != nil {
			_ = os.Remove(f.Name())
		}
	}
	switch {
	case err != nil:
		fileError(w, err)
	case existed:
		w.WriteHeader(http.StatusOK)
	default:
		w.WriteHeader(http.StatusCreated)
	}
}

func (l *Lab) list(w http.ResponseWriter, ds *DatastoreState, local, name string) {
	entries, err := os.ReadDir(local)
	if err != nil {
		fileError(w, err)
		return
	}
	query := "?dcPath=" + url.QueryEscape(l.config.Model.Datacenter) + "&dsName=" + url.QueryEscape(ds.Model.Name)
	var links, names []string
	for _, e := range entries {
		n := e.Name()
		if strings.HasPrefix(n, ".put-") {
			continue
		}
		link := (&url.URL{Path: path.Join("/folder", name, n)}).EscapedPath() + query
		if e.IsDir() {
			n += "/"
		}
		links, names = append(links, link), append(names, n)
	}
	listing(w, "Index of "+l.datastoreName(ds, name), links, names)
}

func listing(w http.ResponseWriter, title string, links, names []string) {
	w.Header().Set("Content-Type", "text/html; charset=utf-8")
	fmt.Fprintf(w, "<html><head><title>%[1]s</title></head><body><h1>%[1]s</h1><table>\n", html.EscapeString(title))
	for i, link := range links {
		fmt.Fprintf(w, "<tr><td><a href=\"%s\">%s</a></td></tr>\n", html.EscapeString(link), html.EscapeString(names[i]))
	}
	fmt.Fprint(w, "</table></body></html>\n")
}

// Locks knows which local files running VMs hold open for writing.
type Locks struct {
	mu    sync.Mutex
	files map[string]types.ManagedObjectReference
	vms   map[types.ManagedObjectReference][]string
}

func NewLocks() *Locks {
	return &Locks{files: map[string]types.ManagedObjectReference{}, vms: map[types.ManagedObjectReference][]string{}}
}

// Set replaces what a VM holds; none for a VM that does not run.
func (k *Locks) Set(vm types.ManagedObjectReference, files []string) {
	k.mu.Lock()
	defer k.mu.Unlock()
	for _, f := range k.vms[vm] {
		if k.files[f] == vm {
			delete(k.files, f)
		}
	}
	delete(k.vms, vm)
	if len(files) > 0 {
		k.vms[vm] = files
		for _, f := range files {
			if _, taken := k.files[f]; !taken {
				k.files[f] = vm
			}
		}
	}
}

// Holder is who holds a file: a VM, or one that runs unseen.
func (k *Locks) Holder(file string) (types.ManagedObjectReference, bool) {
	k.mu.Lock()
	defer k.mu.Unlock()
	ref, ok := k.files[file]
	return ref, ok
}

// Held says whether a VM holds any.
func (k *Locks) Held(vm types.ManagedObjectReference) bool {
	k.mu.Lock()
	defer k.mu.Unlock()
	return len(k.vms[vm]) > 0
}

// List tells who holds which files.
func (k *Locks) List() map[string][]string {
	k.mu.Lock()
	defer k.mu.Unlock()
	out := map[string][]string{}
	for ref, files := range k.vms {
		out[ref.Type+" "+ref.Value] = files
	}
	return out
}

// Hand gives what one holds to another.
func (k *Locks) Hand(from, to types.ManagedObjectReference) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.vms[to] = k.vms[from]
	delete(k.vms, from)
	for _, f := range k.vms[to] {
		k.files[f] = to
	}
}

// Drop lets go what all holders of a type have.
func (k *Locks) Drop(kind string) {
	k.mu.Lock()
	defer k.mu.Unlock()
	for ref, files := range k.vms {
		if ref.Type == kind {
			for _, f := range files {
				if k.files[f] == ref {
					delete(k.files, f)
				}
			}
			delete(k.vms, ref)
		}
	}
}

func (k *Locks) Locked(file string) bool {
	k.mu.Lock()
	defer k.mu.Unlock()
	_, ok := k.files[file]
	return ok
}

// expireSessions ends every session, as an idle time-out or a restart of vpxd does. Reference: SessionManager.TerminateSession.
func (l *Lab) expireSessions() int {
	ctx := simulator.NewContext()
	ctx.Map = l.service.Context.Map
	ctx.Session.Map = ctx.Map
	manager := ctx.Map.SessionManager()
	view, ok := ctx.Session.Get(manager.Reference()).(*simulator.SessionManager)
	if !ok {
		return 0
	}
	n := 0
	for _, s := range view.SessionList {
		if manager.TerminateSession(ctx, &types.TerminateSession{This: manager.Self, SessionId: []string{s.Key}}).Fault() == nil {
			n++
		}
	}
	return n
}
