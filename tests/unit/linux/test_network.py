"""Network configuration: what is read, which name belongs to which card, MAC addresses that change."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from imgtool.errors import UsageError
from imgtool.guests.linux import adapt
from imgtool.guests.linux.edit import Editor
from imgtool.guests.linux.network import cloud_init, find, names, pin, udev
from imgtool.guests.linux.network.pin import Pin
from imgtool.model.guest import AdaptRequest, NicConfig, Platform
from tests.folder_tree import FolderTree
from tests.phony import DISK, tree

OLD, NEW, OTHER = "00:50:56:aa:00:01", "52:54:00:bb:00:01", "52:54:00:bb:00:02"
FILES = {
    "/etc/sysconfig/network-scripts/ifcfg-eth0":
        'DEVICE=eth0\nHWADDR="00:50:56:AA:00:01"  # card\nIPADDR0=192.0.2.1\nNETMASK0=255.255.0.0\n',
    "/etc/sysconfig/network-scripts/ifcfg-eth0.7": "DEVICE=eth0.7\nVLAN=yes\n",
    "/etc/sysconfig/network-scripts/ifcfg-bond0": "DEVICE=bond0\nTYPE=Bond\n",
    "/etc/sysconfig/network-scripts/ifcfg-eth9.bak": "DEVICE=eth9\n",
    "/etc/sysconfig/network/ifcfg-eth1": "BOOTPROTO='dhcp'\nLLADDR='00:50:56:aa:00:01'\n",
    "/etc/sysconfig/network/ifcfg-br0": "BRIDGE='yes'\n",
    "/etc/network/interfaces": "auto br0\niface br0 inet static\n  bridge_ports ens1 ens2\n  address 192.0.2.9\n\n"
                               "iface ens3 inet dhcp\niface ens3 inet6 static\n  address 2001:db8::1/64\n"
                               "source-directory interfaces.d\n",
    "/etc/network/interfaces.d/four": "iface ens4 inet manual\n",
    "/etc/netplan/01.yaml": "network:\n  ethernets:\n    any:\n      match: {macaddress: '00:50:56:AA:00:01'}\n"
                            "      set-name: lan0\n"
                            "      addresses: [192.0.2.5/24, {192.0.2.6/24: {lifetime: 0}}]\n    ens5: {dhcp4: true}\n",
    "/etc/systemd/network/10.network": "[Match]\nName=en* ens6\n[Network]\nDHCP=ipv4\nAddress=192.0.2.6/24\n",
    "/etc/systemd/network/11.network": "[Match]\nMACAddress=00:50:56:aa:00:01\n[Network]\nDHCP=no\n",
    "/etc/NetworkManager/system-connections/a":
        "[connection]\ntype=802-3-ethernet\ninterface-name=ens7\n[802-3-ethernet]\nmac-address=00:50:56:AA:00:01\n"
        "[ipv4]\nmethod=manual\naddress1=192.0.2.7/24,192.0.2.1\n",
    "/usr/lib/NetworkManager/system-connections/came": "[connection]\ntype=ethernet\ninterface-name=ens9\n[ipv4]\nmethod=auto\n",
    "/etc/NetworkManager/system-connections/wifi": "[connection]\ntype=wifi\ninterface-name=wlan0\n",
    "/etc/cloud/cloud.cfg.d/n.cfg": "network:\n  config:\n  - {type: physical, name: ens8, "
                                    "mac_address: '00:50:56:aa:00:01', subnets: [{type: static, address: 192.0.2.8, "
                                    "netmask: 255.255.255.0}]}\n",
    "/etc/udev/rules.d/70-persistent-net.rules": '# c\nSUBSYSTEM=="net", ATTR{address}=="00:50:56:aa:00:01", NAME="eth0"\n',
    "/etc/systemd/network/12.netdev": "[NetDev]\nName=br0\nKind=bridge\nMACAddress=00:50:56:aa:00:01\n",
    "/etc/NetworkManager/conf.d/x.conf": "[keyfile]\nunmanaged-devices=mac:00:50:56:aa:00:01\n",
    "/etc/mactab": "eth0 00:50:56:AA:00:01\n",
    "/etc/systemd/network/1.link": "[Match]\nMACAddress=00:50:56:aa:00:01\n[Link]\nName=wan0\n",
}


@pytest.fixture
def phony(tmp_path: Path) -> FolderTree:
    made = FolderTree(tmp_path)
    for path, content in FILES.items():
        made.write(path, content.encode())
    return made


def test_every_system_is_read(phony: FolderTree) -> None:
    found = [(nic.system, nic.name, nic.mac == OLD, nic.addresses, nic.dhcp) for nic in find.read(phony)]
    assert found == [
        ("ifcfg", "eth0", True, ("192.0.2.1/16",), False), ("wicked", "eth1", True, (), True),
        ("ifupdown", "ens1", False, (), False), ("ifupdown", "ens2", False, (), False),
        ("ifupdown", "ens3", False, ("2001:db8::1/64",), True), ("ifupdown", "ens4", False, (), False),
        ("netplan", "lan0", True, ("192.0.2.5/24", "192.0.2.6/24"), False), ("netplan", "ens5", False, (), True),
        ("networkd", "en*", False, ("192.0.2.6/24",), True), ("networkd", "ens6", False, ("192.0.2.6/24",), True),
        ("networkd", "*", True, (), False), ("NetworkManager", "ens9", False, (), True),
        ("NetworkManager", "ens7", True, ("192.0.2.7/24",), False),
        ("cloud-init", "ens8", True, ("192.0.2.8/24",), False), ("udev", "eth0", True, (), None),
        ("udev", "wan0", True, (), None)]


def test_a_changed_address_is_followed_everywhere_and_nothing_else_changes(phony: FolderTree) -> None:
    editor = Editor(tree=phony, backup=False)
    find.follow(editor, {OLD: NEW})
    for path, content in FILES.items():
        assert phony.read(path).decode() == content.replace(OLD, NEW).replace(OLD.upper(), NEW.upper())
    assert {change.where for change in editor.changes} == {path for path, content in FILES.items() if OLD in content.lower()}
    before = len(editor.changes)
    find.follow(editor, {OLD: NEW})
    assert len(editor.changes) == before


@given(st.text(max_size=300))
def test_what_is_no_address_stays(content: str) -> None:
    assert names.replace_macs(content, {OLD: NEW}) == content.replace(OLD, NEW).replace(OLD.upper(), NEW.upper())


@pytest.mark.parametrize("word", [f"{OLD}:00", f"00:{OLD}", "fe80::250:56ff:feaa:1", "00:50:56:aa:00:0", "00-50:56-aa-00-01"])
def test_longer_words_are_no_addresses(word: str) -> None:
    assert names.replace_macs(word, {OLD: NEW}) == word


def nic(name: str, mac: str | None = None, system: str = "ifupdown") -> NicConfig:
    return NicConfig(name=name, system=system, path="/etc/x", mac=mac)


@pytest.mark.parametrize(("nics", "macs", "pins", "words"), [
    ([nic("ens192")], [NEW], [("ens192", NEW)], ""),
    ([nic("ens192")], [], [("ens192", None)], "whatever its address"),
    ([nic("ens192", OLD)], [], [("ens192", OLD)], ""),
    ([nic("ens192", OLD)], [NEW], [("ens192", NEW)], ""),
    ([nic("eth1", NEW), nic("eth0", OTHER)], [NEW, OTHER], [("eth0", OTHER), ("eth1", NEW)], ""),
    ([nic("eth0"), nic("eth1", NEW)], [NEW, OTHER], [("eth0", OTHER), ("eth1", NEW)], ""),
    ([nic("ens224"), nic("ens9")], [NEW, OTHER], [("ens9", NEW), ("ens224", OTHER)], "by their order"),
    ([nic("eth0"), nic("eth1")], [NEW], [("eth0", NEW)], "no network card is known for eth1"),
    ([nic("eth0"), nic("eth0", NEW, "udev")], [OTHER, NEW], [("eth0", NEW)], ""),
    ([nic("en*"), nic("*", OLD), nic("br0"), nic("eth0.7"), nic("bond0"), nic("lo"), nic("a\nb"), nic("../x")], [NEW], [], ""),
    ([nic("unused", NEW, "udev")], [NEW], [], ""),
])
def test_which_name_belongs_to_which_card(nics: list[NicConfig], macs: list[str], pins: list[tuple[str, str | None]], words: str,
                                          tmp_path: Path) -> None:
    editor = Editor(tree=FolderTree(tmp_path))
    assert pin.decide(editor, nics, macs) == tuple(Pin(name=name, mac=mac) for name, mac in pins)
    assert words in " ".join(editor.warnings)
    assert bool(words) == bool(editor.warnings)


@pytest.mark.parametrize(("nics", "macs", "moved", "words"), [
    ([nic("eth0", OLD)], [NEW], {OLD: NEW}, ""),
    ([nic("eth0", OLD)], [OLD, NEW], {}, ""),
    ([nic("eth0", OLD)], [], {}, ""),
    ([nic("*", OLD, "NetworkManager")], [NEW], {OLD: NEW}, ""),
    ([nic("eth0", NEW), nic("*", OLD, "networkd")], [NEW, OTHER], {OLD: OTHER}, ""),
    ([nic("eth0", OLD, "ifcfg"), nic("*", OLD, "networkd"), nic("eth0", OLD, "udev")], [NEW], {OLD: NEW}, ""),
    ([nic("eth0", OLD, "udev")], [NEW], {}, ""),
    ([nic("*", OLD), nic("*", "00:50:56:aa:00:02")], [NEW, OTHER], {OLD: NEW, "00:50:56:aa:00:02": OTHER}, "by their order"),
    ([nic("*", OLD), nic("*", NEW)], [NEW], {}, f"no network card is known for {OLD}"),
])
def test_addresses_that_the_machine_has_not_are_followed(nics: list[NicConfig], macs: list[str], moved: dict[str, str],
                                                         words: str, tmp_path: Path) -> None:
    editor = Editor(tree=FolderTree(tmp_path))
    assert pin.moved(editor, nics, macs, pin.decide(Editor(tree=editor.tree), nics, macs)) == moved
    assert words in " ".join(editor.warnings)
    assert bool(words) == bool(editor.warnings)


def test_the_cards_where_one_of_two_gets_another_address(tmp_path: Path) -> None:
    """The other one keeps its own."""
    made = FolderTree(tmp_path)
    made.write(udev.BUILTIN[0], b"")
    for number, mac in enumerate((OLD, OTHER)):
        made.write(f"/etc/sysconfig/network-scripts/ifcfg-ens{number}", f"DEVICE=ens{number}\nHWADDR={mac}\n".encode())
    made.write("/etc/udev/rules.d/70-persistent-net.rules",
               b'SUBSYSTEM=="net", ATTR{address}=="00:50:56:dd:dd:dd", NAME="eth7"\n')  # a card of long ago
    editor = Editor(tree=made)
    find.follow(editor, {OLD: NEW})
    nics = find.read(made)
    assert pin.cards(nics, [NEW]) == (NEW, OTHER)
    assert pin.decide(editor, nics, pin.cards(nics, [NEW])) == (Pin(name="ens0", mac=NEW), Pin(name="ens1", mac=OTHER))
    assert not editor.warnings


def test_the_kernels_arguments_follow_too(tmp_path: Path) -> None:
    made = FolderTree(tmp_path)
    made.write("/boot/grub2/grub.cfg", f"\tlinux /a ifname=eth0:{OLD} ip=eth0:dhcp x=00:{OLD}\n".encode())
    find.follow(Editor(tree=made), {OLD: NEW})
    assert made.read("/boot/grub2/grub.cfg").decode() == f"\tlinux /a ifname=eth0:{NEW} ip=eth0:dhcp x=00:{OLD}\n"


@pytest.mark.parametrize(("nics", "config", "written", "words"), [
    ([nic("ens192", system="netplan")], "x: y\n", True, ""),
    ([nic("ens192", system="netplan")], "network: {config: disabled}\n", False, ""),
    ([nic("ens192", system="cloud-init"), nic("ens192", system="netplan")], "x: y\n", False, ""),
    ([nic("ens192", OLD, "udev")], "x: y\n", False, "at the next boot"),
])
def test_cloud_init_leaves_a_network_that_is_there(nics: list[NicConfig], config: str, written: bool, words: str,
                                                   tmp_path: Path) -> None:
    made = FolderTree(tmp_path)
    made.write("/etc/cloud/cloud.cfg", config.encode())
    editor = Editor(tree=made)
    cloud_init.leave_network(editor, nics)
    assert cloud_init.network_disabled(made) is (written or "disabled" in config)
    assert bool(editor.changes) is written
    assert words in " ".join(editor.warnings)
    assert bool(words) == bool(editor.warnings)


def test_a_guest_without_cloud_init_gets_no_settings_for_it(tmp_path: Path) -> None:
    editor = Editor(tree=FolderTree(tmp_path))
    cloud_init.leave_network(editor, [nic("ens192")])
    assert editor.changes == []


def test_link_files_where_udev_reads_them(tmp_path: Path) -> None:
    made = FolderTree(tmp_path)
    made.write(udev.BUILTIN[0], b"")
    assert udev.reads_links(made)
    made.symlink("/dev/null", udev.MASK)
    assert not udev.reads_links(made)
    made.remove(udev.MASK)
    made.write("/etc/udev/rules.d/70-persistent-net.rules", FILES["/etc/udev/rules.d/70-persistent-net.rules"].encode())
    assert not udev.reads_links(made), "a rule with a name comes first"


def test_a_rule_is_replaced_and_comments_stay(tmp_path: Path) -> None:
    made = FolderTree(tmp_path)
    made.write("/lib/udev/x", b"")
    made.write(pin.RULES, b'# mine\nSUBSYSTEM=="net", ATTR{address}=="00:50:56:aa:00:01", NAME="eth0"\n# end')
    editor = Editor(tree=made)
    pin.apply(editor, [Pin(name="eth0", mac=NEW)])
    lines = made.read(pin.RULES).decode().split("\n")
    assert lines[:2] == ["# mine", "# end"]
    assert f'ATTR{{address}}=="{NEW}"' in lines[2]
    assert lines[3:] == [""]
    assert 'NAME="eth0"' in lines[2]
    count = len(editor.changes)
    pin.apply(editor, [Pin(name="eth0", mac=NEW)])
    assert len(editor.changes) == count


def test_new_addresses_of_mac_are_the_cards(tmp_path: Path) -> None:
    made = tree("debian12", tmp_path / "guest")
    adapt(made, DISK, AdaptRequest(images=(), platform=Platform.KVM, macs=((OLD, NEW.upper()),)))
    assert f"MACAddress={NEW}\n" in made.read("/etc/systemd/network/10-imgtool-ens192.link").decode()


def test_what_is_no_address_is_refused(tmp_path: Path) -> None:
    made = tree("debian12", tmp_path / "guest")
    with pytest.raises(UsageError, match="is no MAC address"):
        adapt(made, DISK, AdaptRequest(images=(), platform=Platform.KVM, nics=("52:54:00:00:00:01\nName=x",)))


def test_without_udev_no_name_is_pinned(tmp_path: Path) -> None:
    for pins, words in (([Pin(name="eth0", mac=NEW)], []), ([Pin(name="ens3", mac=NEW)], ["no udev, so ens3 cannot be pinned"]),
                        ([Pin(name="eth0", mac=NEW), Pin(name="eth1", mac=OTHER)], ["so eth0, eth1 cannot"])):
        editor = Editor(tree=FolderTree(tmp_path))
        assert pin.apply(editor, pins) == {}
        assert len(editor.warnings) == len(words)
        assert all(word in warning for word, warning in zip(words, editor.warnings, strict=True))
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(("names", "warned"), [(("eth0", "eth1"), True), (("ens3", "eth1"), True), (("ens3", "ens4"), False),
                                               (("eth0",), False)])
def test_names_that_the_kernel_gives_too_are_warned_of(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, names: tuple[str, ...],
                                                       warned: bool) -> None:
    monkeypatch.setattr(udev, "installed", lambda _: True)
    monkeypatch.setattr(udev, "reads_links", lambda _: True)
    editor = Editor(tree=FolderTree(tmp_path))
    pin.apply(editor, [Pin(name=name, mac=f"52:54:00:00:00:0{number}") for number, name in enumerate(names)])
    assert bool(editor.warnings) == warned
    assert len(list((tmp_path / udev.LINKS.lstrip("/")).iterdir())) == len(names)


def test_a_rule_for_any_card_is_written_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(udev, "installed", lambda _: True)
    made = FolderTree(tmp_path)
    first = pin.apply(Editor(tree=made), [Pin(name="eth0", mac=None)])
    editor = Editor(tree=made)
    assert pin.apply(editor, [Pin(name="eth0", mac=None)]) == first
    assert made.read(pin.RULES).decode() == pin.ANY_RULE.format(name="eth0")
    assert editor.changes == []


def test_a_second_version_within_config(tmp_path: Path) -> None:
    made = FolderTree(tmp_path)
    made.write("/etc/cloud/cloud.cfg.d/n.cfg", b"network:\n  config:\n    version: 2\n    ethernets: {ens3: {dhcp4: true}}\n")
    (card,) = cloud_init.read(made)
    assert (card.name, card.dhcp) == ("ens3", True)
