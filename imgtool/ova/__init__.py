"""OVF packages: a folder with a ``.ovf``, or all of it in one tar archive, an OVA. Source: DMTF DSP0243, section 5.

::

    read_ova(path)  ─┐
                     ├─▶ Package ─▶ check_manifest(package, control)        DifferError, or warnings
    read_ovf(path)  ─┘      │
                            ├─ package.text ─▶ descriptions.ovf.parse       which machine
                            │                  descriptions.ovf.files       which files, and how they are packed
                            └─ open_file(package, reference, folder, stop)  ─▶ Disk: read where it lies, nothing is unpacked

    text = descriptions.ovf.render(machine).text           DiskSlot: path (name in the package), capacity, populated
    with OvaWriter(folder, name, stem, room=len(text), disks) as ova:    in a workspace of files.py,
    whose publish moves the result
        packed = [ova.add(disk, pieces) for …]             pieces: copying.stream.stream(…)
        ova.finish(descriptions.ovf.sized(text, packed))

``read`` (tar, names of members), ``manifest`` (digests), ``disks`` (members as disks), ``write``.
"""
