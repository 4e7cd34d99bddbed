"""ESXi hosts and vCenters.

==============  ==============================================================
``as_source``   ``endpoints.Source``
``as_target``   ``endpoints.FarTarget``
``tls``         who is at the other end
``login``       the session
``properties``  questions to the API
``inventory``   machines and folders
``facts``       what the API knows of one machine
``folder``      files of datastores over HTTPS
``readers``     the ways in which disks come, and which is taken
``ranges``      disks over HTTPS, in parallel, going on after a cut
``exports``     disks through export leases
``shell``       disks over ssh
``mounted``     disks on NFS that is mounted here
``lease``       leases: disks as streams
``incoming``    a new machine through a lease
``deposit``     a new machine as files
``hardware``    what an OVF does not carry
``readback``    what was sent, compared
``leftover``    what a stopped ``send`` left
``machines``    register, rename, start, remove; datastores, networks, …
``tasks``       waiting
==============  ==============================================================
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from imgtool.endpoints.password import password
from imgtool.endpoints.vsphere import inventory, tls
from imgtool.endpoints.vsphere.as_source import VSphereSource
from imgtool.endpoints.vsphere.login import STREAMS, Account, Session
from imgtool.model.endpoint import Credentials, Uri

if TYPE_CHECKING:
    from imgtool.endpoints import FarTarget, Source
    from imgtool.progress import Stop

USER = "root"


def connect(uri: Uri, credentials: Credentials, *, stop: Stop | None = None, streams: int = STREAMS) -> Session:
    """Logs in; where the URI has a path, only that datacenter is seen. At most ``streams`` connections carry data at once.

    Raises UsageError, UnreachableError.
    """
    assert uri.host  # noqa: S101 - endpoints/uri gives one
    user, port = uri.user or USER, uri.port or tls.PORT
    trust = tls.Trust(verify=uri.verify, cacert=uri.cacert, thumbprint=credentials.thumbprint)
    trust.context()  # what is wrong with it is said before the password is asked for
    secret = password(f"{user}@{uri.host}", credentials, stop)
    made = Session(Account(host=uri.host, port=port, user=user, password=secret, trust=trust), streams=streams)
    try:
        inventory.narrow(made, uri.path)
    except BaseException:
        made.close()
        raise
    return made


def source(uri: Uri, credentials: Credentials, stop: Stop) -> Source:
    return VSphereSource(connect(uri, credentials, stop=stop), uri)


def target(uri: Uri, credentials: Credentials, stop: Stop) -> FarTarget:
    from imgtool.endpoints.vsphere.as_target import VSphereTarget  # not loaded where machines are only read

    return VSphereTarget(connect(uri, credentials, stop=stop), uri)
