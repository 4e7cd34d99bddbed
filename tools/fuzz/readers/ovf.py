"""OVF: read, changed in place, its files, and translated."""

from __future__ import annotations

from tools.fuzz.descriptions import described
from tools.fuzz.target import Target

TARGET: Target = described(".ovf", words=(
    b"<Item>", b"<rasd:ResourceType>17</rasd:ResourceType>", b"<rasd:Parent>", b"<rasd:InstanceID>", b"<rasd:AddressOnParent>",
    b"<rasd:HostResource>ovf:/disk/", b"<rasd:AllocationUnits>byte * 2^", b"<rasd:VirtualQuantity>", b"<rasd:ResourceSubType>",
    b"<vmw:Config", b"<DiskSection>", b"<References>", b"<File ovf:href=", b"ovf:compression=\"gzip\"", b"ovf:chunkSize=",
    b"ovf:capacityAllocationUnits=", b"<VirtualSystemCollection", b"<!DOCTYPE x", b"<!ENTITY", b"99999999999999999999", b"-1",
    b"xsi:type=", b"<vbox:Machine", b"ovf:configuration=", b"ovf:id="))
