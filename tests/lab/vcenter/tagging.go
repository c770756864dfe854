// Copyright (c) 2026, ferry.vmware contributors
// GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
// SPDX-License-Identifier: GPL-3.0-or-later

package main

import (
	"bytes"
	"encoding/json"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"

	vapi "github.com/vmware/govmomi/vapi/simulator"
)

// Tagging serves the Automation API's tags. The simulator has them under /rest, as vCenter had them before 7.0 U2 and as govc asks for them;
// the same are given under /api here. References: vSphere Automation API, "CIS Management APIs: Session" (POST /api/session answers 201 and the
// token as a JSON string), "TagAssociation" (POST /api/cis/tagging/tag-association?action=...; attach answers 204), "Tag" (GET
// /api/cis/tagging/tag/{tag}); "vSphere Automation REST API, /rest and /api": names of actions (~action and action), identifiers (id:urn and
// urn), answers (in "value" and bare).
func (l *Lab) Tagging() http.Handler {
	_, old := vapi.New(l.service.Listen, l.service.Context.Map)
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if strings.HasPrefix(r.URL.Path, "/rest/") {
			old.ServeHTTP(w, r)
			return
		}
		path, known := restPath(r.Method, r.URL.Path)
		if !known {
			http.NotFound(w, r)
			return
		}
		body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, 1<<20))
		if err != nil {
			http.Error(w, err.Error(), http.StatusBadRequest)
			return
		}
		inner := r.Clone(r.Context())
		inner.URL.Path, inner.URL.RawPath = path, ""
		inner.URL.RawQuery = strings.Replace(r.URL.RawQuery, "action=", "~action=", 1)
		inner.Body = io.NopCloser(bytes.NewReader(body))
		kept := httptest.NewRecorder()
		old.ServeHTTP(kept, inner)
		answerBare(w, kept, r.Method == http.MethodPost && r.URL.Path == "/api/session")
	})
}

// restPath is the path under /rest of one under /api.
func restPath(method, path string) (string, bool) {
	const tagging = "/api/cis/tagging/"
	if path == "/api/session" {
		return "/rest/com/vmware/cis/session", true
	}
	what, id, _ := strings.Cut(strings.TrimPrefix(path, tagging), "/")
	if !strings.HasPrefix(path, tagging) || strings.Contains(id, "/") {
		return "", false
	}
	path = "/rest/com/vmware/cis/tagging/" + what
	if id != "" {
		path += "/id:" + id
	}
	return path, what == "tag-association" && method == http.MethodPost || (what == "tag" || what == "category") && method == http.MethodGet
}

// answerBare gives an answer of /rest as /api gives it: without "value", and 204 where there is nothing to say.
func answerBare(w http.ResponseWriter, kept *httptest.ResponseRecorder, created bool) {
	if kept.Code != http.StatusOK {
		w.WriteHeader(kept.Code)
		return
	}
	var said struct {
		Value json.RawMessage `json:"value"`
	}
	if kept.Body.Len() == 0 {
		w.WriteHeader(http.StatusNoContent)
		return
	}
	// the simulator leaves an empty list out, or calls it null
	if json.Unmarshal(kept.Body.Bytes(), &said) != nil || said.Value == nil || string(said.Value) == "null" {
		said.Value = json.RawMessage("[]")
	}
	w.Header().Set("Content-Type", "application/json")
	if created {
		w.WriteHeader(http.StatusCreated)
	}
	_, _ = w.Write(bytes.ReplaceAll(said.Value, []byte(`"tag_ids":null`), []byte(`"tag_ids":[]`)))
}
