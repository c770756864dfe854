// Copyright (c) 2026, ferry.vmware contributors
// GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
// SPDX-License-Identifier: GPL-3.0-or-later

// A client of the lab's vCloud Director that is not ours: go-vcloud-director through log-in, queries in pages, a
// relocation, its task and the log-out. The password comes from VCD_PASSWORD, the CA from SSL_CERT_FILE (Go's own).
// It prints one JSON object.
package main

import (
	"encoding/json"
	"encoding/xml"
	"flag"
	"fmt"
	"net/http"
	"net/url"
	"os"
	"strings"
	"time"

	"github.com/vmware/go-vcloud-director/v3/govcd"
	"github.com/vmware/go-vcloud-director/v3/types/v56"
)

const mimeRelocate = "application/vnd.vmware.vcloud.relocateVmParams+xml"

type relocateParams struct {
	XMLName   xml.Name        `xml:"RelocateParams"`
	Xmlns     string          `xml:"xmlns,attr"`
	Datastore types.Reference `xml:"Datastore"`
}

type datastores struct {
	Reference []types.Reference `xml:"Reference"`
}

// Of a Vm, what the test looks at; the library's own type has no vSphere part.
type vmInfo struct {
	Link  []types.Link `xml:"Link"`
	MoRef string       `xml:"VCloudExtension>VmVimInfo>DatastoreVimObjectRef>MoRef"`
}

type answer struct {
	API       string   `json:"api"`
	Total     int      `json:"total"`
	Names     []string `json:"names"`
	Orgs      int      `json:"orgs"`
	Tasks     int      `json:"tasks"`
	Status    string   `json:"status"`
	Before    string   `json:"before"`
	After     string   `json:"after"`
	LoggedOut bool     `json:"logged_out"`
}

func main() {
	base := flag.String("url", "", "https://host:port/api")
	user := flag.String("user", "administrator", "user")
	org := flag.String("org", "System", "organization")
	api := flag.String("api", "", "API version; the library's own choice without it")
	vm := flag.String("vm", "", "name of the VM to relocate")
	target := flag.String("datastore", "", "name of the datastore to relocate it to")
	disconnect := flag.Bool("disconnect", false, "log out by the library's Disconnect, else by sessions/current")
	flag.Parse()
	out, err := run(*base, *user, *org, *api, *vm, *target, *disconnect)
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	if err := json.NewEncoder(os.Stdout).Encode(out); err != nil {
		os.Exit(1)
	}
}

func run(base, user, org, api, vm, target string, disconnect bool) (*answer, error) {
	endpoint, err := url.ParseRequestURI(base)
	if err != nil {
		return nil, err
	}
	var options []govcd.VCDClientOption
	if api != "" {
		options = append(options, govcd.WithAPIVersion(api))
	}
	vcd := govcd.NewVCDClient(*endpoint, false, options...)
	if err := vcd.Authenticate(user, os.Getenv("VCD_PASSWORD"), org); err != nil {
		return nil, err
	}
	client := &vcd.Client
	out := &answer{API: client.APIVersion}
	for page := 1; ; page++ {
		// The library's own way of asking for one page; filterEncoded is what it sends with every query.
		found, err := client.QueryWithNotEncodedParams(nil, map[string]string{
			"type": "adminVM", "filterEncoded": "true", "sortAsc": "name", "pageSize": "30", "page": fmt.Sprint(page)})
		if err != nil {
			return nil, err
		}
		out.Total = int(found.Results.Total)
		for _, record := range found.Results.AdminVMRecord {
			out.Names = append(out.Names, record.Name)
		}
		if len(out.Names) >= out.Total || len(found.Results.AdminVMRecord) == 0 {
			break
		}
	}
	orgs, err := vcd.GetOrgList()
	if err != nil {
		return nil, err
	}
	out.Orgs = len(orgs.Org)
	if vm != "" {
		if err := relocate(vcd, out, vm, target); err != nil {
			return nil, err
		}
	}
	tasks, err := client.QueryTaskList(map[string]string{"status": "running,success"})
	if err != nil {
		return nil, err
	}
	out.Tasks = len(tasks)
	if disconnect {
		err = vcd.Disconnect()
	} else {
		current := strings.TrimSuffix(base, "/api") + "/cloudapi/1.0.0/sessions/current"
		err = client.ExecuteRequestWithoutResponse(current, http.MethodDelete, "", "log out: %s", nil)
	}
	if err != nil {
		return nil, err
	}
	_, err = vcd.GetOrgList()
	out.LoggedOut = err != nil
	return out, nil
}

func relocate(vcd *govcd.VCDClient, out *answer, name, target string) error {
	client := &vcd.Client
	read := func() (*vmInfo, error) {
		found, err := client.QueryWithNotEncodedParams(nil, map[string]string{
			"type": "adminVM", "filterEncoded": "true", "filter": "name==" + url.QueryEscape(name)})
		if err != nil {
			return nil, err
		}
		if len(found.Results.AdminVMRecord) != 1 {
			return nil, fmt.Errorf("%d VMs are named %s", len(found.Results.AdminVMRecord), name)
		}
		vm := new(vmInfo)
		_, err = client.ExecuteRequest(found.Results.AdminVMRecord[0].HREF, http.MethodGet, "", "read VM: %s", nil, vm)
		return vm, err
	}
	list := new(datastores)
	href := client.VCDHREF.String() + "/admin/extension/datastores"
	if _, err := client.ExecuteRequest(href, http.MethodGet, "", "list datastores: %s", nil, list); err != nil {
		return err
	}
	params := relocateParams{Xmlns: types.XMLNamespaceVCloud}
	for _, one := range list.Reference {
		if one.Name == target {
			params.Datastore = types.Reference{HREF: one.HREF, Type: one.Type}
			break
		}
	}
	vm, err := read()
	if err != nil {
		return err
	}
	out.Before = vm.MoRef
	link := ""
	for _, one := range vm.Link {
		if one.Rel == "relocate" && one.Type == mimeRelocate {
			link = one.HREF
		}
	}
	if link == "" {
		return fmt.Errorf("VM %s has no relocate link at API %s", name, client.APIVersion)
	}
	task, err := client.ExecuteTaskRequest(link, http.MethodPost, mimeRelocate, "relocate: %s", params)
	if err != nil {
		return err
	}
	if err := task.WaitInspectTaskCompletion(nil, 200*time.Millisecond); err != nil {
		return err
	}
	out.Status = task.Task.Status
	if vm, err = read(); err == nil {
		out.After = vm.MoRef
	}
	return err
}
