// A vSphere server for tests: the simulator of govmomi with real bytes behind it.
//
// It reads its configuration (JSON) from standard input, prints one line (JSON, the ports) and ends when standard input does.
// What the simulator lacks is put in front of it: /folder with passwords, NFC leases that keep bytes, faults on demand.
package main

import (
	"crypto/tls"
	"encoding/json"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"net/url"
	"os"
	"time"

	"github.com/vmware/govmomi/simulator"
)

type datastoreConfig struct {
	Name, Dir string
	Kind      string // "VMFS" unless said; on a "vsan" there are no flat files to be had
}

type machineConfig struct {
	Path      string // [datastore] folder/name.vmx
	Running   bool
	Snapshots []string
	Tools     bool
	Hostname  string
	Volumes   []volumeConfig
}

type volumeConfig struct {
	Path           string
	Capacity, Free int64
}

type config struct {
	Listen         string
	User, Password string
	Certificate    string // good, expired, wrong-host
	Scratch        string // for streams, and ca.pem
	VCenter        bool
	Folder         string // of the datacenter, in a vCenter
	Datacenter     string
	DoubleEncoded  bool // dcPath and dsName must be percent-encoded twice
	Datastores     []datastoreConfig
	Machines       []machineConfig
	Networks       []string
	LeaseTimeout   float64 // seconds
	FreeLicence    bool
	ClockSkew      float64 // seconds
}

func must(err error) {
	if err != nil {
		log.Fatal(err)
	}
}

func main() {
	var cfg config
	input := json.NewDecoder(os.Stdin)
	must(input.Decode(&cfg))
	model := build(&cfg)
	model.Service.TLS = &tls.Config{Certificates: []tls.Certificate{certificate(cfg.Certificate, cfg.Scratch)}, MinVersion: tls.VersionTLS12}
	model.Service.Listen = &url.URL{Host: cfg.Listen, User: url.UserPassword(cfg.User, cfg.Password)}
	faults := newFaults()
	front := &front{cfg: &cfg, faults: faults, sessions: map[string]bool{}, leases: map[string]*lease{}, model: model}
	server := serve(model, front)
	control, err := net.Listen("tcp", "127.0.0.1:0")
	must(err)
	go func() { must(http.Serve(control, faults.control(front))) }()
	fmt.Printf("{\"port\": %s, \"control\": %d}\n", server.URL.Port(), control.Addr().(*net.TCPAddr).Port)
	_, _ = io.Copy(io.Discard, os.Stdin)
}

func serve(model *simulator.Model, front *front) *simulator.Server {
	server := model.Service.NewServer()
	front.inner = server.Config.Handler
	server.Config.Handler = front
	server.Config.ReadHeaderTimeout = time.Minute
	follow := server.Config.ConnState
	server.Config.ConnState = func(conn net.Conn, state http.ConnState) {
		front.faults.connection(state)
		if follow != nil {
			follow(conn, state)
		}
	}
	return server
}
