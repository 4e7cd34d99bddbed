"""What Windows does itself, once, at its next start: installs the drivers and the agent, and gives static addresses to new cards.

Addresses belong to an interface's GUID, which a new card gets when its driver is installed: only the running Windows can move
them. Its service manager starts ``cmd``, which starts the script and ends; Windows logs that a service did not answer (event
7000 or 7009), once. The script runs as LocalSystem, removes its service and writes ``first-boot.log``.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from imgtool.guests.guest_tree import GuestTree
from imgtool.guests.windows.given import Package
from imgtool.guests.windows.hive import EXPAND_SZ, Hive
from imgtool.model.guest import Change

SERVICE = "imgtool-first-boot"
FOLDER = "imgtool"
"""In Windows's own folder."""
COMMAND = rf"%SystemRoot%\System32\cmd.exe /c start /b %SystemRoot%\System32\cmd.exe /c %SystemRoot%\{FOLDER}\first-boot.cmd"
CMD = f"""\
@echo off
sc.exe delete {SERVICE}
"%SystemRoot%\\System32\\WindowsPowerShell\\v1.0\\powershell.exe" -NoProfile -NonInteractive -ExecutionPolicy Bypass ^
  -File "%SystemRoot%\\{FOLDER}\\first-boot.ps1" >"%SystemRoot%\\{FOLDER}\\first-boot.log" 2>&1
"""
DRIVERS = """\
Get-ChildItem -Path "$env:SystemRoot\\{folder}" -Filter *.inf | ForEach-Object {{ pnputil.exe -i -a $_.FullName }}
"""
AGENT = """\
Start-Process msiexec.exe -Wait -ArgumentList '/i', "$env:SystemRoot\\{folder}\\{name}", '/qn', '/norestart'
"""
NETWORK = """\
$interfaces = 'HKLM:\\SYSTEM\\CurrentControlSet\\Services\\Tcpip\\Parameters\\Interfaces'
$waiting = @(
{cards}
)
for ($try = 0; $try -lt 60 -and $waiting; $try++) {{
    $left = @()
    foreach ($card in $waiting) {{
        $nic = Get-WmiObject Win32_NetworkAdapter | Where-Object {{
            $_.NetConnectionID -and $_.PNPDeviceID -like 'PCI\\*' -and (-not $card.mac -or $_.MACAddress -eq $card.mac)
        }} | Select-Object -First 1
        if (-not $nic) {{ $left += $card; continue }}
        if ($nic.GUID -eq $card.old) {{ continue }}
        $name = $nic.NetConnectionID
        Write-Output "$name ($($nic.MACAddress)) gets $($card.addresses -join ', ')"
        Set-ItemProperty "$interfaces\\$($card.old)" EnableDHCP 1 -ErrorAction SilentlyContinue
        Remove-ItemProperty "$interfaces\\$($card.old)" IPAddress, SubnetMask, DefaultGateway -ErrorAction SilentlyContinue
        $first, $more = $card.addresses
        $ip, $mask = $first -split '/'
        $gateway = 'none'
        if ($card.gateway) {{ $gateway = $card.gateway }}
        netsh.exe interface ipv4 set address "name=$name" source=static "address=$ip" "mask=$mask" "gateway=$gateway"
        foreach ($one in @($more)) {{
            if (-not $one) {{ continue }}
            $ip, $mask = $one -split '/'
            netsh.exe interface ipv4 add address "name=$name" "address=$ip" "mask=$mask"
        }}
        foreach ($server in $card.dns) {{ netsh.exe interface ipv4 add dnsservers "name=$name" "address=$server" validate=no }}
    }}
    $waiting = $left
    if ($waiting) {{ Start-Sleep -Seconds 5 }}
}}
foreach ($card in $waiting) {{ Write-Output "no network card for $($card.addresses -join ', ')" }}
"""
CARD = "    @{{ old = {old}; mac = {mac}; addresses = @({addresses}); gateway = {gateway}; dns = @({dns}) }}"
WHY = "only the running Windows can do it"


@dataclass(frozen=True, kw_only=True)
class Static:
    """An interface with addresses of its own. ``addresses``: ``192.0.2.7/255.255.255.0``."""

    guid: str
    addresses: tuple[str, ...]
    gateway: str | None = None
    dns: tuple[str, ...] = ()


def statics(system: Hive, current: str) -> tuple[Static, ...]:
    """The interfaces with static addresses, in the order of their names."""
    key = rf"{current}\Services\Tcpip\Parameters\Interfaces"
    found = []
    for guid in sorted(system.children(key))[:256]:
        path = rf"{key}\{guid}"
        pairs = zip(system.texts(path, "IPAddress"), system.texts(path, "SubnetMask"), strict=False)
        addresses = tuple(f"{address}/{mask}" for address, mask in pairs if address != "0.0.0.0")  # noqa: S104
        if addresses and not system.number(path, "EnableDHCP"):
            found.append(Static(guid=guid, addresses=addresses, gateway=next(iter(system.texts(path, "DefaultGateway")), None),
                                dns=tuple((system.text(path, "NameServer") or "").replace(",", " ").split())))
    return tuple(found)


def script(package: Package | None, moved: Sequence[tuple[Static, str | None]]) -> str:
    """PowerShell 2, which Windows 7 has. ``moved``: interfaces, and the address of the card that gets what they have."""
    text = ""
    if package:
        folder = package.maker.folder.replace("/", "\\")
        text += DRIVERS.format(folder=folder)
        text += AGENT.format(folder=folder, name=package.agent) if package.agent else ""
    if moved:
        text += NETWORK.format(cards="\n".join(_card(static, mac) for static, mac in moved))
    return text


def _card(static: Static, mac: str | None) -> str:
    def quoted(words: Sequence[str]) -> str:
        return ", ".join(_quoted(word) for word in words)

    return CARD.format(old=_quoted(static.guid), mac=_quoted((mac or "").upper()), addresses=quoted(static.addresses),
                       gateway=_quoted(static.gateway or ""), dns=quoted(static.dns))


def _quoted(word: str) -> str:
    """PowerShell takes nothing in single quotes for code; typographic quotes end them too."""
    plain = "".join(char for char in word if char.isprintable())
    for quote in "'\u2018\u2019\u201a\u201b":
        plain = plain.replace(quote, quote * 2)
    return f"'{plain}'"


def install(tree: GuestTree, system: Hive, current: str, text: str) -> list[Change]:
    """Writes the script and its service. Nothing where there is nothing to do; the hive keeps its own changes."""
    if not text:
        return []
    folder = f"{tree.folded('/Windows') or '/Windows'}/{FOLDER}"
    changes = []
    for name, content in (("first-boot.cmd", CMD), ("first-boot.ps1", text)):
        data = content.replace("\n", "\r\n").encode("utf-8-sig" if name.endswith("ps1") else "ascii")
        if not tree.is_file(f"{folder}/{name}") or tree.read(f"{folder}/{name}") != data:
            tree.write(f"{folder}/{name}", data)
            changes.append(Change(what="script for the next start", where=f"{folder}/{name}", why=WHY))
    key = rf"{current}\Services\{SERVICE}"
    for value, number in (("Type", 0x10), ("Start", 2), ("ErrorControl", 0)):
        system.put_number(key, value, number, WHY)
    system.put_text(key, "ImagePath", COMMAND, WHY, kind=EXPAND_SZ)
    system.put_text(key, "ObjectName", "LocalSystem", WHY)
    system.put_text(key, "DisplayName", "imgtool: drivers and network of the new hardware", WHY)
    return changes
