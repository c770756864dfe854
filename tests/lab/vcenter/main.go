// Copyright (c) 2026, ferry.vmware contributors
// GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
// SPDX-License-Identifier: GPL-3.0-or-later

// ferry-vcenter is the vCenter Server of the lab: the inventory of a model on govmomi's simulator, with
// what the simulator lacks. It listens on loopback only and takes everything, the password too, from one
// configuration file of mode 0600 (never from its argument list).
package main

import (
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"log"
	"net"
	"net/http"
	"os"
	"os/signal"
	"path/filepath"
	"syscall"
	"time"
)

// Config is the file that tests/lab/vcenter.py writes.
type Config struct {
	Listen   string `json:"listen"`  // host:port of https
	Control  string `json:"control"` // host:port of the control port, plain http
	User     string `json:"user"`
	Password string `json:"password"`
	Cert     string `json:"cert"`  // PEM files
	Key      string `json:"key"`   //
	State    string `json:"state"` // folder that this program owns: emptied at the start
	Model    Model  `json:"model"`
}

func readConfig(path string) (*Config, error) {
	st, err := os.Stat(path)
	if err != nil {
		return nil, err
	}
	if st.Mode().Perm()&0o077 != 0 {
		return nil, fmt.Errorf("%s holds a password and must have mode 0600, not %04o", path, st.Mode().Perm())
	}
	data, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	c := new(Config)
	if err = json.Unmarshal(data, c); err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	for _, a := range []string{c.Listen, c.Control} {
		host, _, err := net.SplitHostPort(a)
		if err != nil {
			return nil, err
		}
		if ip := net.ParseIP(host); ip == nil || !ip.IsLoopback() {
			return nil, fmt.Errorf("%s is not on loopback", a)
		}
	}
	if c.User == "" || c.Password == "" {
		return nil, errors.New("user and password must be set")
	}
	return c, nil
}

func run(path string) error {
	c, err := readConfig(path)
	if err != nil {
		return err
	}
	cert, err := tls.LoadX509KeyPair(c.Cert, c.Key)
	if err != nil {
		return err
	}
	// Both ports are taken before the inventory is built: a busy port is known at once.
	front, err := net.Listen("tcp", c.Listen)
	if err != nil {
		return err
	}
	control, err := net.Listen("tcp", c.Control)
	if err != nil {
		return err
	}
	temp := filepath.Join(c.State, "tmp")
	if err = os.RemoveAll(c.State); err != nil {
		return err
	}
	if err = os.MkdirAll(temp, 0o700); err != nil {
		return err
	}
	// The simulator makes its own folder with os.MkdirTemp.
	if err = os.Setenv("TMPDIR", temp); err != nil {
		return err
	}
	lab, err := NewLab(c)
	if err != nil {
		return err
	}
	// Full TLS records from the first byte: a lab that is slow to serve would blur what is measured of its clients.
	https := &tls.Config{Certificates: []tls.Certificate{cert}, MinVersion: tls.VersionTLS12, NextProtos: []string{"http/1.1"}, DynamicRecordSizingDisabled: true}
	servers := []*http.Server{
		{Handler: lab.Front(), TLSConfig: https, ReadHeaderTimeout: 30 * time.Second, ConnState: lab.conns.follow},
		{Handler: lab.Control(), ReadHeaderTimeout: 30 * time.Second},
	}
	failed := make(chan error, 2)
	go func() { failed <- servers[0].ServeTLS(front, "", "") }()
	go func() { failed <- servers[1].Serve(control) }()
	log.Printf("vCenter on https://%s, control on http://%s, %d VMs", c.Listen, c.Control, len(lab.vms))

	stop := make(chan os.Signal, 1)
	signal.Notify(stop, syscall.SIGINT, syscall.SIGTERM)
	select {
	case err = <-failed:
	case <-stop:
	}
	ctx, cancel := context.WithTimeout(context.Background(), 300*time.Millisecond)
	defer cancel()
	for _, s := range servers {
		if s.Shutdown(ctx) != nil {
			_ = s.Close()
		}
	}
	return err
}

func main() {
	path := flag.String("config", "", "configuration file (JSON, mode 0600)")
	flag.Parse()
	if err := run(*path); err != nil {
		log.Fatal(err)
	}
}
