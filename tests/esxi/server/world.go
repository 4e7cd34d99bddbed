package main

import (
	"context"
	"log"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/vmware/govmomi/object"
	"github.com/vmware/govmomi/simulator"
	"github.com/vmware/govmomi/vim25"
	"github.com/vmware/govmomi/vim25/mo"
	"github.com/vmware/govmomi/vim25/types"
)

var client *vim25.Client // in this process, logged in

// build makes the inventory: one host, its datastores and networks, the machines that are in them.
func build(cfg *config) *simulator.Model {
	model := simulator.ESX()
	if cfg.VCenter {
		model = simulator.VPX()
		model.Datacenter, model.Host, model.Cluster, model.Portgroup = 1, 1, 0, 0
		if cfg.Folder != "" {
			model.Folder = 1
		}
	}
	model.Machine, model.Datastore = 0, 0
	must(model.Create())
	var err error
	client, err = vim25.NewClient(context.Background(), model.Service)
	must(err)
	rename(cfg)
	if resource, ok := simulator.Map.Any("ComputeResource").(*mo.ComputeResource); ok && resource.EnvironmentBrowser == nil {
		resource.EnvironmentBrowser = &types.ManagedObjectReference{Type: "EnvironmentBrowser", Value: "ha-env"}
	}
	simulator.Map.Any("Datacenter").(*simulator.Datacenter).Datastore = nil // a stale one is built in
	for _, each := range cfg.Datastores {
		addDatastore(each)
	}
	for _, name := range cfg.Networks {
		addNetwork(name)
	}
	if cfg.FreeLicence {
		limitLicence()
	}
	manager := simulator.Map.Get(*client.ServiceContent.OvfManager).(*simulator.OvfManager)
	simulator.Map.Put(&ovfManager{OvfManager: *manager})
	for _, each := range cfg.Machines {
		addMachine(each)
	}
	return model
}

func rename(cfg *config) {
	if !cfg.VCenter {
		return
	}
	datacenter := simulator.Map.Any("Datacenter")
	parent := simulator.Map.Get(*datacenter.Entity().Parent)
	if cfg.Folder != "" {
		simulator.Map.Update(parent, []types.PropertyChange{{Name: "name", Val: cfg.Folder}})
	}
	simulator.Map.Update(datacenter, []types.PropertyChange{{Name: "name", Val: cfg.Datacenter}})
}

func host() *object.HostSystem {
	return object.NewHostSystem(client, simulator.Map.Any("HostSystem").Reference())
}

func addDatastore(each datastoreConfig) {
	system, err := host().ConfigManager().DatastoreSystem(context.Background())
	must(err)
	made, err := system.CreateLocalDatastore(context.Background(), each.Name, each.Dir)
	must(err)
	kind := each.Kind
	if kind == "" {
		kind = "VMFS"
	}
	found := simulator.Map.Get(made.Reference()).(*simulator.Datastore)
	simulator.Map.WithLock(found, func() { found.Summary.Type = kind })
}

func addNetwork(name string) {
	system, err := host().ConfigManager().NetworkSystem(context.Background())
	must(err)
	err = system.AddPortGroup(context.Background(), types.HostPortGroupSpec{Name: name, VswitchName: "vSwitch0"})
	if err != nil {
		log.Printf("network %s: %s", name, err)
	}
}

func limitLicence() {
	manager := simulator.Map.Get(*client.ServiceContent.LicenseManager).(*simulator.LicenseManager)
	manager.Licenses = []types.LicenseManagerLicenseInfo{
		{EditionKey: "esxBasic.vram", Name: "vSphere 6 Hypervisor"}}
}

// local is the file behind "[datastore] path"; the second value is the datastore's type.
func local(path string) (string, string) {
	var where object.DatastorePath
	if !where.FromString(path) {
		return "", ""
	}
	for _, each := range simulator.Map.All("Datastore") {
		if found, ok := each.(*simulator.Datastore); ok && found.Name == where.Datastore {
			return filepath.Join(found.Info.GetDatastoreInfo().Url, where.Path), found.Summary.Type
		}
	}
	return "", ""
}

func addMachine(each machineConfig) {
	ref, err := register(each.Path, "", nil, nil, nil)
	must(err)
	vm := simulator.Map.Get(*ref).(*simulator.VirtualMachine)
	machine := object.NewVirtualMachine(client, *ref)
	for _, name := range each.Snapshots {
		_, err := machine.CreateSnapshot(context.Background(), name, "", false, false)
		must(err)
	}
	simulator.Map.WithLock(vm, func() { guest(vm, each) })
	if each.Running {
		_, err := machine.PowerOn(context.Background())
		must(err)
	}
}

func guest(vm *simulator.VirtualMachine, each machineConfig) {
	if each.Tools {
		vm.Guest.ToolsRunningStatus = string(types.VirtualMachineToolsRunningStatusGuestToolsRunning)
	}
	vm.Guest.HostName = each.Hostname
	for _, volume := range each.Volumes {
		vm.Guest.Disk = append(vm.Guest.Disk,
			types.GuestDiskInfo{DiskPath: volume.Path, Capacity: volume.Capacity, FreeSpace: volume.Free})
	}
}

// touch makes what the simulator wants to see beside a .vmx; the second value takes away what was not there before.
func touch(folder string, names ...string) func() {
	var made []string
	for _, name := range names {
		file, err := os.OpenFile(filepath.Join(folder, name), os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
		if err == nil {
			made = append(made, file.Name())
			_ = file.Close()
		}
	}
	return func() {
		for _, name := range made {
			_ = os.Remove(name)
		}
	}
}

// register puts the machine of a .vmx into the inventory, with the hardware that it describes.
func register(path, name string, folder, pool, at *types.ManagedObjectReference) (*types.ManagedObjectReference, error) {
	file, _ := local(path)
	described, err := readVMX(file)
	if err != nil {
		return nil, err
	}
	if name == "" {
		name = described.get("displayname", strings.TrimSuffix(filepath.Base(file), ".vmx"))
	}
	done := touch(filepath.Dir(file), name+".nvram", "vmware.log")
	defer done()
	ctx := context.Background()
	task, err := target(folder).RegisterVM(ctx, path, name, false, resources(pool), on(at))
	if err != nil {
		return nil, err
	}
	info, err := task.WaitForResult(ctx, nil)
	if err != nil {
		return nil, err
	}
	ref := info.Result.(types.ManagedObjectReference)
	task, err = object.NewVirtualMachine(client, ref).Reconfigure(ctx, described.spec(path))
	if err == nil {
		err = task.Wait(ctx)
	}
	measure(ref)
	return &ref, err
}

func target(folder *types.ManagedObjectReference) *object.Folder {
	if folder == nil {
		found := simulator.Map.Any("Datacenter").(*simulator.Datacenter).VmFolder
		folder = &found
	}
	return object.NewFolder(client, *folder)
}

func resources(pool *types.ManagedObjectReference) *object.ResourcePool {
	if pool == nil {
		found := simulator.Map.Any("ResourcePool").Reference()
		pool = &found
	}
	return object.NewResourcePool(client, *pool)
}

func on(at *types.ManagedObjectReference) *object.HostSystem {
	if at == nil {
		return host()
	}
	return object.NewHostSystem(client, *at)
}

// measure gives the disks of a machine the sizes of their flat files, and raw device mappings their backing.
func measure(ref types.ManagedObjectReference) {
	vm, ok := simulator.Map.Get(ref).(*simulator.VirtualMachine)
	if !ok {
		return
	}
	simulator.Map.WithLock(vm, func() {
		taken(vm)
		for _, device := range vm.Config.Hardware.Device {
			disk, ok := device.(*types.VirtualDisk)
			if !ok {
				continue
			}
			backing, ok := disk.Backing.(*types.VirtualDiskFlatVer2BackingInfo)
			if !ok {
				continue
			}
			file, _ := local(backing.FileName)
			if found, err := os.Stat(flat(file)); err == nil && found.Size() > 0 {
				disk.CapacityInBytes, disk.CapacityInKB = found.Size(), found.Size()/1024
			}
			mapped(disk, backing, file)
		}
	})
}

// taken gives the layout of a machine the space that its files take, as a host does: of a thin disk less than its size.
func taken(vm *simulator.VirtualMachine) {
	for number := range vm.LayoutEx.File {
		file, _ := local(vm.LayoutEx.File[number].Name)
		if found, err := os.Stat(file); err == nil {
			vm.LayoutEx.File[number].Size = found.Sys().(*syscall.Stat_t).Blocks * 512
		}
	}
}

func mapped(disk *types.VirtualDisk, backing *types.VirtualDiskFlatVer2BackingInfo, file string) {
	text, err := os.ReadFile(file)
	if err != nil || len(text) > 1<<20 || !strings.Contains(string(text), "RawDeviceMap") {
		return
	}
	mode := "virtualMode"
	if strings.Contains(string(text), "vmfsPassthroughRawDeviceMap") {
		mode = "physicalMode"
	}
	disk.Backing = &types.VirtualDiskRawDiskMappingVer1BackingInfo{
		VirtualDeviceFileBackingInfo: backing.VirtualDeviceFileBackingInfo, CompatibilityMode: mode, DiskMode: backing.DiskMode}
}

// flat is the name of the file with the bytes that belongs to a descriptor.
func flat(descriptor string) string { return strings.TrimSuffix(descriptor, ".vmdk") + "-flat.vmdk" }

func running(folder string) bool {
	for _, each := range simulator.Map.All("VirtualMachine") {
		vm, ok := each.(*simulator.VirtualMachine)
		if !ok || vm.Runtime.PowerState != types.VirtualMachinePowerStatePoweredOn {
			continue
		}
		if file, _ := local(vm.Config.Files.VmPathName); filepath.Dir(file) == folder {
			return true
		}
	}
	return false
}

func seconds(count float64) time.Duration { return time.Duration(count * float64(time.Second)) }
