package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/vmware/govmomi/object"
	"github.com/vmware/govmomi/simulator"
	"github.com/vmware/govmomi/vim25/mo"
	"github.com/vmware/govmomi/vim25/types"
)

const initializing = 200 * time.Millisecond // clients have to wait for a lease

// A leased is the lease as the API shows it.
type leased struct{ mo.HttpNfcLease }

// A lease holds what is behind it: for each disk the flat file and the stream on its way.
type lease struct {
	shown     *leased
	machine   types.ManagedObjectReference
	session   string // it ends with it
	importing bool

	mutex    sync.Mutex
	disks    []leasedDisk
	progress time.Time
	over     bool
}

type leasedDisk struct {
	flat, stream string
	thin         bool
}

func (f *front) newLease(session string, machine types.ManagedObjectReference, importing bool) *lease {
	shown := &leased{}
	shown.State = types.HttpNfcLeaseStateInitializing
	shown.Self.Type = "HttpNfcLease"
	simulator.Map.Put(shown)
	made := &lease{shown: shown, machine: machine, session: session, importing: importing, progress: time.Now()}
	f.mutex.Lock()
	f.leases[shown.Self.Value] = made
	f.mutex.Unlock()
	return made
}

func (l *lease) change(name string, value types.AnyType) {
	simulator.Map.WithLock(l.shown, func() {
		simulator.Map.Update(l.shown, []types.PropertyChange{{Name: name, Val: value}})
	})
}

func (l *lease) fail(message string) {
	l.change("error", types.LocalizedMethodFault{Fault: &types.Timedout{}, LocalizedMessage: message})
	l.change("state", types.HttpNfcLeaseStateError)
}

// ready fills in the addresses: with an asterisk for the host, as real ones have it.
func (f *front) ready(l *lease) {
	vm := simulator.Map.Get(l.machine).(*simulator.VirtualMachine)
	devices := object.VirtualDeviceList(vm.Config.Hardware.Device)
	info := types.HttpNfcLeaseInfo{Lease: l.shown.Self, Entity: l.machine, LeaseTimeout: int32(f.cfg.LeaseTimeout)}
	for number, device := range devices.SelectByType((*types.VirtualDisk)(nil)) {
		disk := device.(*types.VirtualDisk)
		backing := disk.Backing.(*types.VirtualDiskFlatVer2BackingInfo)
		file, _ := local(backing.FileName)
		id := l.shown.Self.Value
		l.disks = append(l.disks, leasedDisk{flat: flat(file), thin: backing.ThinProvisioned != nil && *backing.ThinProvisioned,
			stream: filepath.Join(f.cfg.Scratch, fmt.Sprintf("%s-%d.vmdk", id, number))})
		info.TotalDiskCapacityInKB += disk.CapacityInKB
		info.DeviceUrl = append(info.DeviceUrl, types.HttpNfcLeaseDeviceUrl{
			Key:       fmt.Sprintf("/%s/VirtualDisk:%d", l.machine.Value, disk.Key),
			ImportKey: fmt.Sprintf("/%s/disk:%d", vm.Name, number),
			Url:       fmt.Sprintf("https://*/ha-nfc/%s/disk-%d.vmdk", id, number),
			Disk:      types.NewBool(true), TargetId: fmt.Sprintf("disk-%d.vmdk", number)})
	}
	if !l.importing {
		for _, disk := range l.disks {
			if err := convert("raw", disk.flat, "vmdk", disk.stream, "subformat=streamOptimized,adapter_type=lsilogic"); err != nil {
				l.fail(err.Error())
				return
			}
			must(finish(disk.stream))
		}
	}
	time.Sleep(initializing)
	l.change("info", info)
	l.mutex.Lock()
	l.progress = time.Now()
	l.mutex.Unlock()
	l.change("state", types.HttpNfcLeaseStateReady)
	go f.watch(l)
}

// watch ends a lease that nobody keeps alive.
func (f *front) watch(l *lease) {
	for {
		time.Sleep(50 * time.Millisecond)
		l.mutex.Lock()
		over, late := l.over, time.Since(l.progress) > seconds(f.cfg.LeaseTimeout)
		l.over = l.over || late
		l.mutex.Unlock()
		if over {
			return
		}
		if late {
			l.fail("the lease has timed out")
			f.drop(l)
			return
		}
	}
}

// loggedOut ends the leases of a session.
func (f *front) loggedOut(session string) {
	for _, l := range f.leases {
		if l.session == session && l.shown.State == types.HttpNfcLeaseStateReady {
			l.mutex.Lock()
			l.over = true
			l.mutex.Unlock()
			l.fail("the session has ended")
			f.drop(l)
		}
	}
}

// drop forgets a lease. One that was importing takes its machine with it.
func (f *front) drop(l *lease) {
	for _, disk := range l.disks {
		_ = os.Remove(disk.stream)
	}
	if l.importing {
		if task, err := machine(l.machine).Destroy(context.Background()); err == nil {
			_ = task.Wait(context.Background())
		}
	}
}

func (f *front) exportVM(w http.ResponseWriter, method *simulator.Method) {
	vm, ok := simulator.Map.Get(method.This).(*simulator.VirtualMachine)
	switch {
	case !ok:
		refuse(w, "gone", "ManagedObjectNotFound", `<obj type="VirtualMachine">`+method.This.Value+`</obj>`)
	case vm.Runtime.PowerState != types.VirtualMachinePowerStatePoweredOff:
		refuse(w, "The machine is running.", "InvalidPowerState",
			"<requestedState>poweredOff</requestedState><existingState>"+string(vm.Runtime.PowerState)+"</existingState>")
	default:
		made := f.newLease(method.Header.Cookie, method.This, false)
		go f.ready(made)
		reply(w, `<ExportVmResponse xmlns="urn:vim25"><returnval type="HttpNfcLease">`+made.shown.Self.Value+`</returnval></ExportVmResponse>`)
	}
}

func (f *front) importVApp(w http.ResponseWriter, method *simulator.Method) {
	request := method.Body.(*types.ImportVApp)
	spec := request.Spec.(*types.VirtualMachineImportSpec).ConfigSpec
	for _, each := range simulator.Map.All("VirtualMachine") {
		if each.Entity().Name == spec.Name {
			refuse(w, "The name is taken.", "DuplicateName", "<name>x</name><object type=\"VirtualMachine\">"+each.Reference().Value+"</object>")
			return
		}
	}
	ctx := context.Background()
	task, err := target(request.Folder).CreateVM(ctx, spec, resources(&method.This), on(request.Host))
	if err == nil {
		var info *types.TaskInfo
		if info, err = task.WaitForResult(ctx, nil); err == nil {
			made := f.newLease(method.Header.Cookie, info.Result.(types.ManagedObjectReference), true)
			go f.ready(made)
			reply(w, `<ImportVAppResponse xmlns="urn:vim25"><returnval type="HttpNfcLease">`+made.shown.Self.Value+`</returnval></ImportVAppResponse>`)
			return
		}
	}
	log.Printf("import: %s", err)
	refuse(w, "The specification is invalid.", "InvalidArgument", "<invalidProperty>spec</invalidProperty>")
}

// open finds a lease that can be used.
func (f *front) open(id string) *lease {
	f.mutex.Lock()
	defer f.mutex.Unlock()
	found := f.leases[id]
	if found == nil || found.shown.State != types.HttpNfcLeaseStateReady {
		return nil
	}
	return found
}

func (f *front) onLease(w http.ResponseWriter, method *simulator.Method, act func(*lease)) {
	found := f.open(method.This.Value)
	if found == nil {
		refuse(w, "The lease is over.", "InvalidState", "")
		return
	}
	act(found)
	reply(w, `<`+method.Name+`Response xmlns="urn:vim25"/>`)
}

func (f *front) leaseProgress(w http.ResponseWriter, method *simulator.Method) {
	f.onLease(w, method, func(l *lease) {
		l.mutex.Lock()
		l.progress = time.Now()
		l.mutex.Unlock()
	})
}

func (f *front) end(l *lease) {
	l.mutex.Lock()
	l.over = true
	l.mutex.Unlock()
	l.change("state", types.HttpNfcLeaseStateDone)
}

func (f *front) leaseComplete(w http.ResponseWriter, method *simulator.Method) {
	f.onLease(w, method, func(l *lease) {
		f.end(l)
		for _, disk := range l.disks {
			_ = os.Remove(disk.stream)
			if l.importing {
				must(os.WriteFile(strings.TrimSuffix(disk.flat, "-flat.vmdk")+".vmdk", descriptor(disk), 0o600))
			}
		}
		if l.importing {
			measure(l.machine)
			writeVMX(l.machine)
		}
	})
}

func (f *front) leaseAbort(w http.ResponseWriter, method *simulator.Method) {
	f.onLease(w, method, func(l *lease) {
		f.end(l)
		f.drop(l)
	})
}

// descriptor is what a host writes beside a flat file.
func descriptor(disk leasedDisk) []byte {
	found, err := os.Stat(disk.flat)
	must(err)
	thin := ""
	if disk.thin {
		thin = "ddb.thinProvisioned = \"1\"\n"
	}
	return []byte(fmt.Sprintf("# Disk DescriptorFile\nversion=1\nencoding=\"UTF-8\"\nCID=4a5b6c7d\nparentCID=ffffffff\ncreateType=\"vmfs\"\n\n"+
		"# Extent description\nRW %d VMFS \"%s\"\n\n# The Disk Data Base\n#DDB\n\nddb.adapterType = \"lsilogic\"\n%sddb.virtualHWVersion = \"13\"\n",
		found.Size()/512, filepath.Base(disk.flat), thin))
}

func convert(from, source, to, destination, options string) error {
	arguments := []string{"convert", "-f", from, "-O", to}
	if options != "" {
		arguments = append(arguments, "-o", options)
	}
	said, err := exec.Command("qemu-img", append(arguments, source, destination)...).CombinedOutput()
	if err != nil {
		return fmt.Errorf("qemu-img: %s", said)
	}
	return nil
}

// finish ends a stream as a host does, with a footer and the marker for the end; qemu-img writes neither.
func finish(name string) error {
	file, err := os.OpenFile(name, os.O_RDWR, 0)
	if err != nil {
		return err
	}
	defer file.Close()
	header := make([]byte, 512)
	if _, err = file.ReadAt(header, 0); err != nil {
		return err
	}
	found, err := file.Stat()
	if err != nil {
		return err
	}
	end := make([]byte, 3*512)
	end[0], end[12] = 1, 3 // a footer of one sector
	copy(end[512:], header)
	_, err = file.WriteAt(end, (found.Size()+511)/512*512)
	return err
}

// nfc serves the streams of leases: without a length, without ranges, without a password (the address is the secret).
func (f *front) nfc(w http.ResponseWriter, r *http.Request) {
	parts := strings.Split(strings.Trim(r.URL.Path, "/"), "/")
	if len(parts) != 3 {
		http.NotFound(w, r)
		return
	}
	l := f.open(parts[1])
	number, err := strconv.Atoi(strings.TrimSuffix(strings.TrimPrefix(parts[2], "disk-"), ".vmdk"))
	if l == nil || err != nil || number >= len(l.disks) {
		http.NotFound(w, r)
		return
	}
	disk := l.disks[number]
	w, over := f.faults.data(w, r, r.URL.Path)
	if over {
		return
	}
	switch {
	case r.Method == http.MethodGet && !l.importing:
		send(w, disk.stream)
	case (r.Method == http.MethodPost || r.Method == http.MethodPut) && l.importing:
		if errors.Is(receive(w, r, disk), errFull) {
			l.change("error", types.LocalizedMethodFault{Fault: &types.NoDiskSpace{Datastore: "ds"}, LocalizedMessage: "no space"})
			l.change("state", types.HttpNfcLeaseStateError)
			l.mutex.Lock()
			l.over = true
			l.mutex.Unlock()
			f.drop(l)
		}
	default:
		w.WriteHeader(http.StatusMethodNotAllowed)
	}
}

func send(w http.ResponseWriter, name string) {
	file, err := os.Open(name)
	if err != nil {
		w.WriteHeader(http.StatusInternalServerError)
		return
	}
	defer file.Close()
	w.Header().Set("Content-Type", "application/x-vnd.vmware-streamVmdk")
	w.WriteHeader(http.StatusOK)
	_, _ = io.Copy(w, file)
}

func receive(w http.ResponseWriter, r *http.Request, disk leasedDisk) error {
	if r.Header.Get("Content-Type") != "application/x-vnd.vmware-streamVmdk" {
		w.WriteHeader(http.StatusUnsupportedMediaType)
		return nil
	}
	file, err := os.Create(disk.stream)
	must(err)
	_, err = io.Copy(file, r.Body)
	_ = file.Close()
	if err == nil {
		err = convert("vmdk", disk.stream, "raw", disk.flat, "")
	}
	if err != nil {
		log.Printf("upload: %s", err)
		w.WriteHeader(http.StatusInternalServerError)
		return err
	}
	w.WriteHeader(http.StatusCreated)
	return nil
}
