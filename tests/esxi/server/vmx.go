package main

import (
	"fmt"
	"os"
	"path"
	"path/filepath"
	"regexp"
	"sort"
	"strconv"
	"strings"

	"github.com/vmware/govmomi/object"
	"github.com/vmware/govmomi/simulator"
	"github.com/vmware/govmomi/vim25/types"
)

// A vmx is what a .vmx file says; its keys are in lower case.
type vmx map[string]string

var line = regexp.MustCompile(`^\s*([^\s=#][^=]*?)\s*=\s*"(.*)"\s*$`)
var slot = regexp.MustCompile(`^(scsi|sata|ide|nvme)(\d+):(\d+)\.filename$`)
var card = regexp.MustCompile(`^ethernet(\d+)\.present$`)

func readVMX(file string) (vmx, error) {
	text, err := os.ReadFile(file)
	if err != nil {
		return nil, err
	}
	found := vmx{}
	for _, each := range strings.Split(string(text), "\n") {
		if match := line.FindStringSubmatch(strings.TrimRight(each, "\r")); match != nil {
			found[strings.ToLower(match[1])] = match[2]
		}
	}
	return found, nil
}

func (v vmx) get(key, otherwise string) string {
	if value, ok := v[key]; ok && value != "" {
		return value
	}
	return otherwise
}

func (v vmx) on(key string) bool { return strings.EqualFold(v[key], "true") }

func (v vmx) number(key string, otherwise int) int {
	if value, err := strconv.Atoi(v[key]); err == nil {
		return value
	}
	return otherwise
}

func (v vmx) keys() []string {
	var keys []string
	for key := range v {
		keys = append(keys, key)
	}
	sort.Strings(keys)
	return keys
}

// guestID finds the API's word for a system: centos-64 is centos64Guest, debian12-64 would be debian12_64Guest.
func guestID(word string) string {
	for _, candidate := range []string{
		word, strings.Replace(word, "-64", "64Guest", 1), strings.Replace(word, "-64", "_64Guest", 1), word + "Guest"} {
		for _, known := range simulator.GuestID {
			if strings.EqualFold(candidate, string(known)) {
				return string(known)
			}
		}
	}
	return string(types.VirtualMachineGuestOsIdentifierOtherGuest64)
}

// spec is what has to be changed in a machine that was just registered.
func (v vmx) spec(where string) types.VirtualMachineConfigSpec {
	tracking := v.on("ctkenabled")
	spec := types.VirtualMachineConfigSpec{
		GuestId: guestID(v.get("guestos", "other-64")), Firmware: v.get("firmware", "bios"),
		NumCPUs: int32(v.number("numvcpus", 1)), NumCoresPerSocket: int32(v.number("cpuid.corespersocket", 1)),
		MemoryMB: int64(v.number("memsize", 32)), ChangeTrackingEnabled: &tracking,
		Version: fmt.Sprintf("vmx-%02d", v.number("virtualhw.version", 13)), Annotation: v.get("annotation", ""),
	}
	var devices object.VirtualDeviceList
	made := map[int32]bool{200: true, 201: true} // the two IDE channels are always there
	for _, key := range v.keys() {
		if match := slot.FindStringSubmatch(key); match != nil && v.on(strings.TrimSuffix(key, "filename")+"present") {
			devices = append(devices, v.storage(match, where, made)...)
		} else if match := card.FindStringSubmatch(key); match != nil && v.on(key) {
			devices = append(devices, v.nic(match[1]))
		}
	}
	spec.DeviceChange, _ = devices.ConfigSpec(types.VirtualDeviceConfigSpecOperationAdd)
	for _, change := range spec.DeviceChange {
		change.GetVirtualDeviceConfigSpec().FileOperation = "" // what is there stays
	}
	return spec
}

var firstKeys = map[string][3]int32{ // of controllers, of disks, disks on a controller
	"scsi": {1000, 2000, 16}, "sata": {15000, 16000, 30}, "ide": {200, 3000, 2}, "nvme": {31000, 32000, 15}}

func (v vmx) storage(match []string, where string, made map[int32]bool) object.VirtualDeviceList {
	bus, prefix := match[1], match[1]+match[2]+":"+match[3]+"."
	number, _ := strconv.Atoi(match[2])
	unit, _ := strconv.Atoi(match[3])
	keys, at := firstKeys[bus], int32(unit)
	base := types.VirtualDevice{
		Key: keys[1] + int32(number)*keys[2] + at, ControllerKey: keys[0] + int32(number), UnitNumber: &at}
	var found object.VirtualDeviceList
	if !made[base.ControllerKey] {
		made[base.ControllerKey] = true
		found = append(found, v.controller(bus, number, base.ControllerKey))
	}
	file := absolute(v[prefix+"filename"], where)
	if kind := v[prefix+"devicetype"]; strings.Contains(kind, "cdrom") {
		base.Backing = &types.VirtualCdromRemotePassthroughBackingInfo{}
		if kind == "cdrom-image" {
			iso := &types.VirtualCdromIsoBackingInfo{}
			iso.FileName, base.Backing = file, iso
		}
		return append(found, &types.VirtualCdrom{VirtualDevice: base})
	}
	backing := &types.VirtualDiskFlatVer2BackingInfo{DiskMode: strings.ReplaceAll(v.get(prefix+"mode", "persistent"), "-", "_")}
	backing.FileName = file
	base.Backing = backing
	disk := &types.VirtualDisk{VirtualDevice: base}
	if shared := v[prefix+"sharing"]; shared != "" {
		backing.Sharing = "sharingMultiWriter"
	}
	return append(found, disk)
}

// absolute is a path as the API has it: [datastore] folder/disk.vmdk.
func absolute(name, where string) string {
	var described object.DatastorePath
	described.FromString(where)
	if strings.HasPrefix(name, "/vmfs/volumes/") {
		parts := strings.SplitN(strings.TrimPrefix(name, "/vmfs/volumes/"), "/", 2)
		described.Datastore, described.Path = parts[0], parts[1]
	} else {
		described.Path = path.Join(path.Dir(described.Path), name)
	}
	return described.String()
}

func (v vmx) controller(bus string, number int, key int32) types.BaseVirtualDevice {
	base := types.VirtualController{BusNumber: int32(number)}
	base.Key = key
	scsi := types.VirtualSCSIController{VirtualController: base, SharedBus: types.VirtualSCSISharingNoSharing}
	switch shared := v[fmt.Sprintf("scsi%d.sharedbus", number)]; shared {
	case "virtual":
		scsi.SharedBus = types.VirtualSCSISharingVirtualSharing
	case "physical":
		scsi.SharedBus = types.VirtualSCSISharingPhysicalSharing
	}
	switch model := v.get(fmt.Sprintf("%s%d.virtualdev", bus, number), "lsilogic"); {
	case bus == "sata":
		return &types.VirtualAHCIController{VirtualSATAController: types.VirtualSATAController{VirtualController: base}}
	case bus == "nvme":
		return &types.VirtualNVMEController{VirtualController: base}
	case model == "pvscsi":
		return &types.ParaVirtualSCSIController{VirtualSCSIController: scsi}
	case model == "lsisas1068":
		return &types.VirtualLsiLogicSASController{VirtualSCSIController: scsi}
	case model == "buslogic":
		return &types.VirtualBusLogicController{VirtualSCSIController: scsi}
	}
	return &types.VirtualLsiLogicController{VirtualSCSIController: scsi}
}

func (v vmx) nic(number string) types.BaseVirtualDevice {
	prefix := "ethernet" + number + "."
	count, _ := strconv.Atoi(number)
	backing := &types.VirtualEthernetCardNetworkBackingInfo{}
	backing.DeviceName = v.get(prefix+"networkname", "VM Network")
	if simulator.Map.FindByName(backing.DeviceName, simulator.Map.Any("Datacenter").(*simulator.Datacenter).Network) == nil {
		addNetwork(backing.DeviceName)
	}
	base := types.VirtualEthernetCard{MacAddress: v.get(prefix+"address", v.get(prefix+"generatedaddress", ""))}
	base.Key, base.Backing = int32(4000+count), backing
	switch v.get(prefix+"virtualdev", "e1000") {
	case "vmxnet3":
		card := &types.VirtualVmxnet3{}
		card.VirtualEthernetCard = base
		return card
	case "e1000e":
		return &types.VirtualE1000e{VirtualEthernetCard: base}
	case "vlance":
		return &types.VirtualPCNet32{VirtualEthernetCard: base}
	}
	return &types.VirtualE1000{VirtualEthernetCard: base}
}

var ours = map[string]bool{} // the files that writeVMX has written

// rewriteVMX brings such a file up to date.
func rewriteVMX(ref types.ManagedObjectReference) {
	vm, ok := simulator.Map.Get(ref).(*simulator.VirtualMachine)
	if !ok {
		return
	}
	if file, _ := local(vm.Config.Files.VmPathName); ours[file] {
		writeVMX(ref)
	}
}

// writeVMX leaves the .vmx of a machine that was made through the API, where the simulator leaves an empty file.
func writeVMX(ref types.ManagedObjectReference) {
	vm := simulator.Map.Get(ref).(*simulator.VirtualMachine)
	file, _ := local(vm.Config.Files.VmPathName)
	if found, err := os.Stat(file); err != nil || found.Size() > 0 && !ours[file] {
		return
	}
	ours[file] = true
	devices := object.VirtualDeviceList(vm.Config.Hardware.Device)
	text := []string{`.encoding = "UTF-8"`, `config.version = "8"`}
	say := func(key string, value interface{}) { text = append(text, fmt.Sprintf("%s = \"%v\"", key, value)) }
	say("virtualHW.version", strings.TrimPrefix(vm.Config.Version, "vmx-"))
	say("displayName", vm.Name)
	say("guestOS", strings.Replace(strings.Replace(vm.Config.GuestId, "_64Guest", "-64", 1), "64Guest", "-64", 1))
	say("firmware", vm.Config.Firmware)
	say("memSize", vm.Config.Hardware.MemoryMB)
	say("numvcpus", vm.Config.Hardware.NumCPU)
	say("cpuid.coresPerSocket", vm.Config.Hardware.NumCoresPerSocket)
	if boot := vm.Config.BootOptions; boot != nil && boot.EfiSecureBootEnabled != nil && *boot.EfiSecureBootEnabled {
		say("uefi.secureBoot.enabled", "TRUE")
	}
	if bytes := strings.ReplaceAll(vm.Config.Uuid, "-", ""); len(bytes) == 32 {
		var pairs []string
		for at := 0; at < 32; at += 2 {
			pairs = append(pairs, bytes[at:at+2])
		}
		say("uuid.bios", strings.Join(pairs[:8], " ")+"-"+strings.Join(pairs[8:], " "))
	}
	for _, each := range vm.Config.ExtraConfig {
		say(each.GetOptionValue().Key, each.GetOptionValue().Value)
	}
	cards := 0
	for _, device := range devices {
		switch each := device.(type) {
		case types.BaseVirtualSCSIController:
			controller := each.GetVirtualSCSIController()
			say(fmt.Sprintf("scsi%d.present", controller.BusNumber), "TRUE")
			say(fmt.Sprintf("scsi%d.virtualDev", controller.BusNumber), strings.Replace(devices.Type(device), "-", "", 1))
		case *types.VirtualDisk:
			controller := devices.FindByKey(each.ControllerKey)
			prefix := bus(controller) + fmt.Sprintf("%d:%d", controller.(types.BaseVirtualController).GetVirtualController().BusNumber,
				*each.UnitNumber)
			say(prefix+".present", "TRUE")
			say(prefix+".deviceType", strings.TrimRight(bus(controller), "0123456789")+"-hardDisk")
			say(prefix+".fileName", filepath.Base(each.Backing.(types.BaseVirtualDeviceFileBackingInfo).GetVirtualDeviceFileBackingInfo().FileName))
		case types.BaseVirtualEthernetCard:
			base, prefix := each.GetVirtualEthernetCard(), fmt.Sprintf("ethernet%d", cards)
			say(prefix+".present", "TRUE")
			say(prefix+".virtualDev", strings.ToLower(strings.TrimPrefix(fmt.Sprintf("%T", device), "*types.Virtual")))
			if base.AddressType == "manual" {
				say(prefix+".addressType", "static")
			}
			say(prefix+".address", base.MacAddress)
			if backing, ok := base.Backing.(*types.VirtualEthernetCardNetworkBackingInfo); ok {
				say(prefix+".networkName", backing.DeviceName)
			}
			cards++
		}
	}
	must(os.WriteFile(file, []byte(strings.Join(text, "\n")+"\n"), 0o600))
}

func bus(controller types.BaseVirtualDevice) string {
	switch controller.(type) {
	case types.BaseVirtualSCSIController:
		return "scsi"
	case *types.VirtualAHCIController:
		return "sata"
	case *types.VirtualNVMEController:
		return "nvme"
	}
	return "ide"
}
