package main

import (
	"bytes"
	"context"
	"encoding/xml"
	"fmt"
	"io"
	"log"
	"net/http"
	"strings"
	"sync"
	"time"

	"github.com/vmware/govmomi/object"
	"github.com/vmware/govmomi/simulator"
	"github.com/vmware/govmomi/vim25/methods"
	"github.com/vmware/govmomi/vim25/soap"
	"github.com/vmware/govmomi/vim25/types"
)

// A front answers what the simulator does not know, or not faithfully enough; the rest it passes on.
type front struct {
	cfg    *config
	faults *faults
	model  *simulator.Model
	inner  http.Handler

	mutex    sync.Mutex
	sessions map[string]bool   // keys that /folder accepts
	leases   map[string]*lease // by id
}

func (f *front) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	switch {
	case strings.HasPrefix(r.URL.Path, "/folder"):
		f.folder(w, r)
	case strings.HasPrefix(r.URL.Path, "/nfc/"), strings.HasPrefix(r.URL.Path, "/ha-nfc/"):
		f.nfc(w, r)
	case r.URL.Path == "/sdk" && r.Method == http.MethodPost:
		f.sdk(w, r)
	default:
		f.inner.ServeHTTP(w, r)
	}
}

func (f *front) session(r *http.Request) bool {
	cookie, err := r.Cookie(soap.SessionCookieName)
	if err != nil {
		return false
	}
	f.mutex.Lock()
	defer f.mutex.Unlock()
	return f.sessions[cookie.Value]
}

// expire ends all sessions: of the data, and if asked those of the API as well.
func (f *front) expire(api bool) {
	f.mutex.Lock()
	defer f.mutex.Unlock()
	for key := range f.sessions {
		delete(f.sessions, key)
		if api {
			simulator.Map.SessionManager().TerminateSession(
				&simulator.Context{Context: context.Background(), Session: &simulator.Session{}, Map: simulator.Map},
				&types.TerminateSession{SessionId: []string{key}})
		}
	}
}

// Calls that a host with a free licence refuses.
var writes = map[string]bool{
	"CreateVM_Task": true, "RegisterVM_Task": true, "ImportVApp": true, "ExportVm": true, "PowerOnVM_Task": true,
	"PowerOffVM_Task": true, "CreateSnapshot_Task": true, "RemoveSnapshot_Task": true, "ReconfigVM_Task": true,
	"Destroy_Task": true, "UnregisterVM": true, "Rename_Task": true}

func (f *front) sdk(w http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(r.Body)
	if err != nil {
		return
	}
	r.Body = io.NopCloser(bytes.NewReader(body))
	method, err := simulator.UnmarshalBody(types.TypeFunc(), body)
	if err != nil {
		f.pass(w, r, "")
		return
	}
	f.faults.called(method.Name)
	switch {
	case f.faults.takeSOAP():
		w.WriteHeader(http.StatusServiceUnavailable)
	case f.cfg.FreeLicence && writes[method.Name]:
		refuse(w, "Current license or ESXi version prohibits execution of the requested operation.", "RestrictedVersion", "")
	case f.faults.refused(method.Name):
		refuse(w, "Permission to perform this operation was denied.", "NoPermission",
			"<object type=\"Folder\">ha-folder-root</object><privilegeId>System.Modify</privilegeId>")
	case f.faults.ignored(method.Name):
		reply(w, `<`+method.Name+`Response xmlns="urn:vim25"/>`)
	default:
		f.answer(w, r, method)
	}
}

func (f *front) answer(w http.ResponseWriter, r *http.Request, method *simulator.Method) {
	own := map[string]func(http.ResponseWriter, *simulator.Method){
		"ExportVm": f.exportVM, "ImportVApp": f.importVApp, "RegisterVM_Task": f.registerVM,
		"CurrentTime": f.currentTime, "QueryConfigOptionDescriptor": f.hardware,
		 "HttpNfcLeaseProgress": f.leaseProgress, "HttpNfcLeaseComplete": f.leaseComplete, "HttpNfcLeaseAbort": f.leaseAbort}
	call, ok := own[method.Name]
	if !ok {
		f.pass(w, r, method.Name)
		switch method.Name {
		case "CreateVM_Task":
			f.created()
		case "ReconfigVM_Task":
			rewriteVMX(method.This)
		}
		return
	}
	if !f.session(r) {
		refuse(w, "The session is not authenticated.", "NotAuthenticated",
			"<object type=\"Folder\">ha-folder-root</object><privilegeId>System.View</privilegeId>")
		return
	}
	if cookie, err := r.Cookie(soap.SessionCookieName); err == nil {
		method.Header.Cookie = cookie.Value
	}
	call(w, method)
}

// pass lets the simulator answer. It panics where a property has no value: an empty answer, as a host gives it.
func (f *front) pass(w http.ResponseWriter, r *http.Request, method string) {
	defer func() {
		if problem := recover(); problem != nil {
			if problem == http.ErrAbortHandler || method != "Fetch" {
				panic(problem)
			}
			reply(w, `<FetchResponse xmlns="urn:vim25"/>`)
		}
	}()
	f.inner.ServeHTTP(w, r)
	f.mutex.Lock()
	defer f.mutex.Unlock()
	for _, each := range (&http.Response{Header: w.Header()}).Cookies() {
		if method == "Login" && each.Name == soap.SessionCookieName {
			f.sessions[each.Value] = true
		}
	}
	if cookie, err := r.Cookie(soap.SessionCookieName); err == nil && method == "Logout" {
		delete(f.sessions, cookie.Value)
		f.loggedOut(cookie.Value)
	}
}

// hardware is what an ESXi 6.7 knows.
func (f *front) hardware(w http.ResponseWriter, _ *simulator.Method) {
	var known strings.Builder
	for _, version := range []string{"vmx-08", "vmx-13", "vmx-14"} {
		known.WriteString(`<returnval><key>` + version + `</key><description>` + version + `</description><createSupported>true</createSupported></returnval>`)
	}
	reply(w, `<QueryConfigOptionDescriptorResponse xmlns="urn:vim25">`+known.String()+`</QueryConfigOptionDescriptorResponse>`)
}

func (f *front) currentTime(w http.ResponseWriter, _ *simulator.Method) {
	there := time.Now().Add(seconds(f.cfg.ClockSkew)).UTC().Format(time.RFC3339Nano)
	reply(w, `<CurrentTimeResponse xmlns="urn:vim25"><returnval>`+there+`</returnval></CurrentTimeResponse>`)
}

func (f *front) registerVM(w http.ResponseWriter, method *simulator.Method) {
	request := method.Body.(*types.RegisterVM_Task)
	ref, err := register(request.Path, request.Name, &method.This, request.Pool, request.Host)
	task := finished(ref, err)
	reply(w, fmt.Sprintf(`<RegisterVM_TaskResponse xmlns="urn:vim25"><returnval type="Task">%s</returnval></RegisterVM_TaskResponse>`,
		task.Value))
}

// finished is a task that has come to its end.
func finished(ref *types.ManagedObjectReference, err error) types.ManagedObjectReference {
	owner := simulator.Map.Any("Datacenter").(*simulator.Datacenter)
	return simulator.CreateTask(owner, "registerVm", func(*simulator.Task) (types.AnyType, types.BaseMethodFault) {
		if err != nil {
			log.Printf("register: %s", err)
			return nil, &types.InvalidArgument{InvalidProperty: "path"}
		}
		return *ref, nil
	}).Run()
}

// created completes machines that CreateVM made: sizes of disks that were there before, a .vmx with words in it.
func (f *front) created() {
	for _, each := range simulator.Map.All("VirtualMachine") {
		measure(each.Reference())
		writeVMX(each.Reference())
	}
}

// An ovfManager remembers how disks shall be provisioned, as a host does.
type ovfManager struct{ simulator.OvfManager }

func (m *ovfManager) CreateImportSpec(ctx *simulator.Context, request *types.CreateImportSpec) soap.HasFault {
	found := m.OvfManager.CreateImportSpec(ctx, request)
	body, ok := found.(*methods.CreateImportSpecBody)
	if !ok || body.Res == nil {
		return found
	}
	spec, ok := body.Res.Returnval.ImportSpec.(*types.VirtualMachineImportSpec)
	if !ok {
		return found
	}
	if known := guestID(spec.ConfigSpec.GuestId); known != spec.ConfigSpec.GuestId {
		spec.ConfigSpec.GuestId = known // as a host does with a system that it does not know
	}
	thin, eager := request.Cisp.DiskProvisioning == "thin", request.Cisp.DiskProvisioning == "eagerZeroedThick"
	for _, change := range spec.ConfigSpec.DeviceChange {
		disk, ok := change.GetVirtualDeviceConfigSpec().Device.(*types.VirtualDisk)
		if !ok {
			continue
		}
		if backing, ok := disk.Backing.(*types.VirtualDiskFlatVer2BackingInfo); ok {
			backing.ThinProvisioned, backing.EagerlyScrub = &thin, &eager
		}
	}
	return found
}

const envelope = xml.Header + `<soapenv:Envelope xmlns:soapenv="http://schemas.xmlsoap.org/soap/envelope/" ` +
	`xmlns:xsd="http://www.w3.org/2001/XMLSchema" xmlns:xsi="http://www.w3.org/2001/XMLSchema-instance">` +
	`<soapenv:Body>%s</soapenv:Body></soapenv:Envelope>`

func reply(w http.ResponseWriter, body string) {
	w.Header().Set("Content-Type", "text/xml; charset=utf-8")
	fmt.Fprintf(w, envelope, body)
}

func refuse(w http.ResponseWriter, message, fault, inside string) {
	w.Header().Set("Content-Type", "text/xml; charset=utf-8")
	w.WriteHeader(http.StatusInternalServerError)
	fmt.Fprintf(w, envelope, fmt.Sprintf(`<soapenv:Fault><faultcode>ServerFaultCode</faultcode><faultstring>%s</faultstring>`+
		`<detail><%sFault xmlns="urn:vim25" xsi:type="%s">%s</%sFault></detail></soapenv:Fault>`, message, fault, fault, inside, fault))
}

func machine(ref types.ManagedObjectReference) *object.VirtualMachine {
	return object.NewVirtualMachine(client, ref)
}
