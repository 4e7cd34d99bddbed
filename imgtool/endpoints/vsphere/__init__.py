"""ESXi hosts and vCenters. ``VSphere`` is the endpoint; what it does stands in the modules beside.

==============  ==============================================================
``tls``         who is at the other end
``login``       the session
``properties``  questions to the API
``inventory``   machines, and what the API knows of one
``folder``      files of datastores over HTTPS
``ranges``      disks over HTTPS, in parallel, going on after a cut
``lease``       disks as streams: vSAN, and the way in
``incoming``    a new machine, with its disks
``machines``    register, rename, start, remove; datastores, networks, …
``tasks``       waiting
==============  ==============================================================
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from imgtool.endpoints.password import password
from imgtool.endpoints.vsphere import folder, inventory, machines, ranges, tls
from imgtool.endpoints.vsphere.login import STREAMS, Account, Session
from imgtool.errors import UsageError
from imgtool.model.endpoint import Credentials, Facts, Found, Places, RemoteDisk, Uri
from imgtool.progress import Control, Stop

if TYPE_CHECKING:
    from imgtool.endpoints import Sink

USER = "root"


def connect(uri: Uri, credentials: Credentials, *, streams: int = STREAMS) -> VSphere:
    """Logs in. At most ``streams`` connections carry data at once. Raises UsageError, UnreachableError."""
    if uri.host is None:
        raise UsageError(f"{uri.scheme}:// needs a host")
    user, port = uri.user or USER, uri.port or tls.PORT
    trust = tls.Trust(verify=uri.verify, cacert=uri.cacert, thumbprint=credentials.thumbprint)
    trust.context()  # what is wrong with it is said before the password is asked for
    secret = password(f"{user}@{uri.host}", credentials.password_file)
    return VSphere(Session(Account(host=uri.host, port=port, user=user, password=secret, trust=trust), streams=streams))


def source(uri: Uri, credentials: Credentials) -> VSphere:
    return connect(uri, credentials)


def target(uri: Uri, credentials: Credentials) -> VSphere:
    return connect(uri, credentials)


class VSphere:
    """An ESXi host or a vCenter that has let us in."""

    def __init__(self, session: Session) -> None:
        self.session = session

    def machines(self) -> list[Found]:
        return inventory.machines(self.session)

    def find(self, name: str) -> Found:
        return inventory.find(self.session, name)

    def facts(self, found: Found) -> Facts:
        return inventory.facts(self.session, found)

    def places(self) -> Places:
        return machines.places(self.session)

    def files(self, found: Found) -> folder.Folder:
        """The datastores of a machine's datacenter. A folder remembers how its server wants names."""
        return folder.Folder(self.session, inventory.datacenter(self.session, found))

    def description(self, facts: Facts) -> bytes:
        return self.files(facts.found).read(folder.StorePath.parse(facts.description))

    def read(self, found: Found, disk: RemoteDisk, sink: Sink, wanted: Iterable[tuple[int, int]], control: Control) -> None:
        """Raises ``folder.NoFileError`` where the disk is no flat file: ``lease.exporting`` is the way then."""
        files = self.files(found)
        ranges.read(files, folder.extents(files, disk.path), wanted, sink, control)

    def rename(self, machine: str, name: str) -> None:
        machines.rename(self.session, machine, name, Stop())

    def start(self, machine: str) -> None:
        machines.start(self.session, machine, Stop())

    def remove(self, machine: str) -> None:
        machines.remove(self.session, machine, Stop())

    def close(self) -> None:
        self.session.close()
