"""The far end: reads and writes block devices for imgtool on another machine. One file, Python's standard library only.

It is sent over ssh's standard input and ends with its connection. Nothing is installed, no file is left. Python 3.6 will do, so
that old servers can be read; hence no newer syntax here.

A message is two numbers (32 bits, big endian: length of the JSON text, length of the payload), the text and the payload.
A request has ``id`` and ``op``; its answer has the same ``id``, and ``error`` (words) and ``errno`` where it failed. Several
threads work on requests, so answers may come in another order. Offsets and lengths are bytes.
"""

import ctypes
import errno
import fcntl
import glob
import hashlib
import json
import mmap
import os
import queue
import select
import signal
import socket
import stat
import struct
import sys
import threading
import time
import zlib

HEAD = struct.Struct(">II")
LARGEST = 64 << 20
LARGEST_TEXT = 1 << 20
LARGEST_RANGES = 65536
THREADS = 4
DIGEST = 16
ALIGN = 4096

# linux/fs.h
BLKRRPART, BLKSSZGET, BLKPBSZGET, BLKGETSIZE64, BLKFLSBUF = 0x125F, 0x1268, 0x127B, 0x80081272, 0x1261
BLKDISCARD, BLKZEROOUT = 0x1277, 0x127F
FALLOC_FL_KEEP_SIZE, FALLOC_FL_PUNCH_HOLE = 1, 2
FIFREEZE, FITHAW = 0xC0045877, 0xC0045878
# linux/fsmap.h
FS_IOC_GETFSMAP, MAP_RECORDS = 0xC0C0583B, 1024
MAP_HEAD, MAP_RECORD = struct.Struct("=4I48x"), struct.Struct("=IIQQQQ24x")
FMR_OF_SPECIAL_OWNER, FMR_OF_LAST, FMR_OWN_FREE = 0x10, 0x20, 1


def number(fd, request, kind="I"):
    """One number that an ioctl gives."""
    buffer = bytearray(struct.calcsize(kind))
    fcntl.ioctl(fd, request, buffer)
    return struct.unpack(kind, buffer)[0]


class Device:
    """An open block device, or a file that stands for one.

    Reads and writes bypass the page cache: of a device in use it may be stale. A file is written through it.
    """

    def __init__(self, path, write, exclusive=False):
        flags = os.O_CLOEXEC | (os.O_RDWR if write else os.O_RDONLY) | (os.O_EXCL if write or exclusive else 0)
        self.fd = -1
        self.direct = not (write and stat.S_ISREG(os.stat(path).st_mode))
        try:
            self.fd = os.open(path, flags | (os.O_DIRECT if self.direct else 0))
            self._probe()
        except OSError as error:
            if error.errno != errno.EINVAL or not self.direct:
                raise
            if self.fd >= 0:
                os.close(self.fd)
            self.fd = os.open(path, flags)
            self.direct = False
        self.is_block = os.path.exists("/sys/dev/block/%d:%d" % split(os.fstat(self.fd).st_rdev))
        self.size = os.lseek(self.fd, 0, os.SEEK_END)
        self.sector = number(self.fd, BLKSSZGET) if self.is_block else 512
        self.physical = number(self.fd, BLKPBSZGET) if self.is_block else 512

    def _probe(self):
        """O_DIRECT opens, but does not read, on some file systems."""
        if self.direct and os.lseek(self.fd, 0, os.SEEK_END) >= ALIGN:
            os.preadv(self.fd, [mmap.mmap(-1, ALIGN)], 0)

    def read(self, offset, length):
        """Exactly ``length`` bytes (a memoryview), or EOFError."""
        align = 1 if not self.direct else self.sector if self.is_block else ALIGN
        start = offset // align * align
        need = -(-(offset + length - start) // align) * align
        buffer = memoryview(mmap.mmap(-1, max(need, ALIGN)))
        done = 0
        while done < offset - start + length:
            count = os.preadv(self.fd, [buffer[done:need]], start + done)
            if not count:
                raise EOFError("the device ends at byte %d" % (start + done))
            done += count
        return buffer[offset - start:offset - start + length]

    def write(self, offset, data):
        if not self.direct or offset % self.sector or len(data) % self.sector:
            return self._whole(offset, data)
        buffer = memoryview(mmap.mmap(-1, max(len(data), ALIGN)))[:len(data)]
        buffer[:] = data
        self._all(offset, buffer)
        return len(data)

    def _whole(self, offset, data):
        """Of a file, or of parts of sectors: read, changed, written."""
        if not self.direct:
            self._all(offset, memoryview(data))
            return len(data)
        start = offset // self.sector * self.sector
        length = -(-(offset + len(data) - start) // self.sector) * self.sector
        old = self.read(start, length)
        old[offset - start:offset - start + len(data)] = data
        buffer = memoryview(mmap.mmap(-1, max(length, ALIGN)))[:length]
        buffer[:] = old
        self._all(start, buffer)
        return len(data)

    def _all(self, offset, buffer):
        done = 0
        while done < len(buffer):
            done += os.pwritev(self.fd, [buffer[done:]], offset + done)

    def range_ioctl(self, request, offset, length):
        fcntl.ioctl(self.fd, request, struct.pack("QQ", offset, length))


def punched(fd, offset, length):
    """Whether the file system has made a hole of it: fallocate(2)."""
    libc = ctypes.CDLL(None, use_errno=True)
    call = libc.fallocate
    call.argtypes = (ctypes.c_int, ctypes.c_int, ctypes.c_int64, ctypes.c_int64)
    if not call(fd, FALLOC_FL_KEEP_SIZE | FALLOC_FL_PUNCH_HOLE, offset, length):
        return True
    if ctypes.get_errno() in (errno.EOPNOTSUPP, errno.ENOSYS):
        return False
    raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))


def masked(device, start, length, wanted):
    """A range of a device, with zeros where it is not wanted."""
    ranges = [(max(low, start), min(high, start + length)) for low, high in wanted if low < start + length and high > start]
    if ranges == [(start, start + length)]:
        return device.read(start, length)
    data = bytearray(length)
    for low, high in ranges:
        data[low - start:high - start] = device.read(low, high - low)
    return data


def free_ranges(fd):
    """Of the file system that a folder is on. ioctl_getfsmap(2); OSError where the file system has no such map."""
    low, high = bytes(MAP_RECORD.size), MAP_RECORD.pack(0xffffffff, 0xffffffff, *[0xffffffffffffffff] * 3, 0)
    device = os.fstat(fd).st_dev
    while True:
        buffer = bytearray(MAP_HEAD.pack(0, 0, MAP_RECORDS, 0) + low + high + bytes(MAP_RECORDS * MAP_RECORD.size))
        fcntl.ioctl(fd, FS_IOC_GETFSMAP, buffer)
        count = MAP_HEAD.unpack_from(buffer)[3]
        records = [MAP_RECORD.unpack_from(buffer, MAP_HEAD.size + 2 * MAP_RECORD.size + number * MAP_RECORD.size)
                   for number in range(count)]
        for dev, flags, physical, owner, _, length in records:
            if flags & FMR_OF_SPECIAL_OWNER and owner == FMR_OWN_FREE and dev == encoded(device):
                yield [physical, physical + length]
        if not records or records[-1][1] & FMR_OF_LAST:
            return
        low = MAP_RECORD.pack(*records[-1])


def encoded(device):
    """As the kernel writes device numbers for programs: new_encode_dev()."""
    major, minor = split(device)
    return minor & 0xff | major << 8 | (minor & ~0xff) << 12


def split(device):
    return os.major(device), os.minor(device)


def zstd():
    """The standard library's, from Python 3.14; or the package, if it is there."""
    try:
        from compression import zstd as module
        return module.compress
    except ImportError:
        pass
    try:
        import zstandard
        return lambda data: zstandard.ZstdCompressor(level=1).compress(bytes(data))
    except ImportError:
        return None


class Freezer:
    """Holds file systems still. A process of its own, started beforehand, thaws them when we go, or after a time."""

    def __init__(self, mounts, seconds):
        self.ask, other = socket.socketpair()
        ready = os.pipe2(0)
        self.pid = os.fork()
        if not self.pid:
            hold(mounts, seconds, other.fileno(), ready[1])
            os._exit(0)
        other.close()
        os.close(ready[1])
        theirs = b""
        while True:
            more = os.read(ready[0], 4096)
            if not more:
                break
            theirs += more
        os.close(ready[0])
        word, _, skipped = theirs.partition(b"\n")
        if word != b"frozen":
            self.thaw()
            raise OSError(errno.EBUSY, theirs.decode("utf-8", "replace") or "the freezing process ended")
        self.skipped = json.loads(skipped.decode("utf-8"))

    def thaw(self):
        """True if it was frozen until now."""
        try:
            self.ask.send(b"t", socket.MSG_NOSIGNAL)  # it may have thawed and ended by itself
        except OSError:
            pass
        self.ask.close()
        _, status = os.waitpid(self.pid, 0)
        return status == 0


def hold(mounts, seconds, ask, ready):
    """The freezing process: ends with 0 if it was told to thaw, with 1 if the time was over or the other side went away."""
    os.setsid()
    for name in (signal.SIGHUP, signal.SIGTERM, signal.SIGINT, signal.SIGPIPE):
        signal.signal(name, signal.SIG_IGN)
    keep_only(ask, ready)
    mlock()
    opened, frozen, skipped = [], [], []
    status = 1
    try:
        for mount in mounts:
            opened.append((os.open(mount, os.O_RDONLY | os.O_DIRECTORY), mount))
        os.sync()
        for fd, mount in opened:
            if freezes(fd):
                frozen.append(fd)
            else:
                skipped.append(mount)
        os.write(ready, b"frozen\n" + json.dumps(skipped).encode())
        os.close(ready)
        readable, _, _ = select.select([ask], [], [], seconds)
        status = 0 if readable and os.read(ask, 1) == b"t" else 1
    except OSError as error:
        os.write(ready, str(error).encode())
    finally:
        for fd in reversed(frozen):
            try:
                fcntl.ioctl(fd, FITHAW, 0)
            except OSError:
                pass
    os._exit(status)


def freezes(fd):
    """False where the file system cannot be frozen (FAT)."""
    try:
        fcntl.ioctl(fd, FIFREEZE, 0)
    except OSError as error:
        if error.errno != errno.EOPNOTSUPP:
            raise
        return False
    return True


def keep_only(*kept):
    """Closes all other files: ssh's pipes, so that the connection can end, and the ends that tell another freezer to thaw."""
    for name in os.listdir("/proc/self/fd"):
        if int(name) not in kept:
            try:
                os.close(int(name))
            except OSError:
                pass


def mlock():
    """Nothing of the freezing process may have to be read from the disk that it froze."""
    try:
        ctypes.CDLL(None).mlockall(3)
    except (OSError, AttributeError):
        pass


class Server:
    """Answers requests from one pipe on another."""

    def __init__(self, source, sink):
        self.source, self.sink = source, sink
        self.devices, self.freezers = {}, {}
        self.lock = threading.Lock()
        self.next = 1
        self.zstd = zstd()
        self.work = queue.Queue(THREADS * 2)

    def run(self):
        for _ in range(THREADS):
            threading.Thread(target=self._worker, daemon=True).start()
        try:
            while True:
                head = self._exactly(HEAD.size)
                if head is None:
                    return
                text, payload = HEAD.unpack(head)
                if text > LARGEST or payload > LARGEST:
                    return
                request = json.loads(self._exactly(text).decode("utf-8"))
                self.work.put((request, self._exactly(payload)))
        finally:
            for freezer in self.freezers.values():
                freezer.thaw()

    def _exactly(self, count):
        data = bytearray()
        while len(data) < count:
            more = self.source.read(count - len(data))
            if not more:
                return None
            data += more
        return bytes(data)

    def _worker(self):
        while True:
            request, payload = self.work.get()
            data = b""
            try:
                found = getattr(self, "op_" + str(request.get("op")))(request, payload)
                answer, data = found if isinstance(found, tuple) else (found, b"")
            except (OSError, EOFError, ValueError, KeyError, AttributeError, TypeError) as error:
                answer = {"error": str(error) or type(error).__name__, "errno": getattr(error, "errno", None)}
            answer["id"] = request.get("id")
            text = json.dumps(answer).encode()
            with self.lock:
                self.sink.write(HEAD.pack(len(text), len(data)) + text)
                self.sink.write(data)
                self.sink.flush()

    def op_hello(self, request, payload):
        return {"python": sys.version.split()[0], "zstd": self.zstd is not None, "host": os.uname()[1], "uid": os.getuid(),
                "machine": os.uname()[4], "time": time.time(), "pid": os.getpid()}

    def op_open(self, request, payload):
        device = Device(request["path"], bool(request.get("write")), bool(request.get("exclusive")))
        with self.lock:
            handle, self.next = self.next, self.next + 1
            self.devices[handle] = device
        return {"handle": handle, "size": device.size, "sector": device.sector, "physical": device.physical,
                "direct": device.direct, "block": device.is_block}

    def op_create(self, request, payload):
        """A file that is there for us alone; it is made if it is not there. ``size``: at least so long."""
        fd = os.open(request["path"], os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        try:
            if os.fstat(fd).st_size < request["size"]:
                os.ftruncate(fd, request["size"])
        finally:
            os.close(fd)
        return {}

    def op_truncate(self, request, payload):
        os.ftruncate(self.devices[request["handle"]].fd, request["size"])
        return {}

    def op_data(self, request, payload):
        """Ranges [start, end) of a file that may hold data, at most LARGEST_RANGES; ``next``: where to go on."""
        fd, at, end = self.devices[request["handle"]].fd, request["start"], request["end"]
        found = []
        while at < end and len(found) < LARGEST_RANGES:
            try:
                start = os.lseek(fd, at, os.SEEK_DATA)
            except OSError as error:
                if error.errno != errno.ENXIO:
                    raise
                at = end
                break
            if start >= end:
                at = end
                break
            at = min(os.lseek(fd, start, os.SEEK_HOLE), end)
            found.append([start, at])
        return {"ranges": found, "next": at}

    def op_rename(self, request, payload):
        """Not over what is there."""
        os.link(request["path"], request["to"], follow_symlinks=False)
        os.unlink(request["path"])
        folder = os.open(os.path.dirname(request["to"]) or ".", os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)
        return {}

    def op_mode(self, request, payload):
        """Rights, and owner (-1: as it is), of a file."""
        os.chown(request["path"], request.get("uid", -1), request.get("gid", -1), follow_symlinks=False)
        os.chmod(request["path"], request["mode"])
        return {}

    def op_remove(self, request, payload):
        """True if it was there."""
        try:
            os.unlink(request["path"])
        except FileNotFoundError:
            return {"removed": False}
        return {"removed": True}

    def op_stat(self, request, payload):
        """Of a file, a device or a folder; with ``statvfs`` of what it lies on."""
        try:
            status = os.stat(request["path"])
        except FileNotFoundError:
            return {"found": False}
        space = os.statvfs(request["path"])
        return {"found": True, "size": status.st_size, "allocated": status.st_blocks * 512, "mtime": status.st_mtime_ns,
                "mode": status.st_mode, "uid": status.st_uid, "gid": status.st_gid, "inode": status.st_ino,
                "device": status.st_dev, "free": space.f_bavail * space.f_frsize}

    def op_close(self, request, payload):
        os.close(self.devices.pop(request["handle"]).fd)
        return {}

    def op_read(self, request, payload):
        """``zero`` instead of a payload where there are only zeros; ``codec``: zlib or zstd, used where it makes it smaller."""
        data = self.devices[request["handle"]].read(request["offset"], request["length"])
        if not any_set(data):
            return {"zero": True}
        codec = request.get("codec")
        packed = zlib.compress(data, 1) if codec == "zlib" else self.zstd(data) if codec == "zstd" and self.zstd else None
        if packed is not None and len(packed) < len(data) * 15 // 16:
            return {"codec": codec}, packed
        return {}, data

    def op_hash(self, request, payload):
        """One digest for each ``chunk`` bytes of the range; of chunks that are all zeros too.

        ``wanted``: sorted ranges [start, end); what lies outside them is not read, and counts as zeros.
        """
        device, end = self.devices[request["handle"]], request["offset"] + request["length"]
        if not device.direct:  # what is on the disk, not what is remembered
            os.posix_fadvise(device.fd, request["offset"], request["length"], os.POSIX_FADV_DONTNEED)
        wanted = request.get("wanted") or [[request["offset"], end]]
        sums = []
        for start in range(request["offset"], end, request["chunk"]):
            data = masked(device, start, min(request["chunk"], end - start), wanted)
            sums.append(hashlib.blake2b(data, digest_size=DIGEST).digest())
        return {}, b"".join(sums)

    def op_write(self, request, payload):
        if request.get("codec") == "zlib":
            payload = zlib.decompress(payload)
        return {"written": self.devices[request["handle"]].write(request["offset"], payload)}

    def op_zero(self, request, payload):
        """By the device, or the file system, where it can; the range reads as zeros afterwards."""
        device, offset, length = self.devices[request["handle"]], request["offset"], request["length"]
        if device.is_block and not (offset | length) % device.sector:
            device.range_ioctl(BLKZEROOUT, offset, length)
        elif not device.is_block and not request.get("written") and punched(device.fd, offset, length):
            pass
        else:
            for start in range(offset, offset + length, 1 << 20):
                device.write(start, bytes(min(1 << 20, offset + length - start)))
        return {}

    def op_reserve(self, request, payload):
        """Space for all of a file. False where the file system cannot."""
        fd = self.devices[request["handle"]].fd
        try:
            os.posix_fallocate(fd, 0, max(os.fstat(fd).st_size, 1))
        except OSError as error:
            if error.errno not in (errno.EOPNOTSUPP, errno.EINVAL):
                raise
            return {"reserved": False}
        return {"reserved": True}

    def op_discard(self, request, payload):
        """A hint to the device: what the range reads as afterwards is not said."""
        device = self.devices[request["handle"]]
        device.range_ioctl(BLKDISCARD, request["offset"], request["length"])
        return {}

    def op_flush(self, request, payload):
        os.fsync(self.devices[request["handle"]].fd)
        return {}

    def op_reread(self, request, payload):
        """The kernel reads the partition table anew, and forgets what it had cached."""
        fd = self.devices[request["handle"]].fd
        fcntl.ioctl(fd, BLKFLSBUF, 0)
        fcntl.ioctl(fd, BLKRRPART, 0)
        return {}

    def op_device(self, request, payload):
        """What a path is: links resolved; of a block device the kernel's name (sda, sda1)."""
        path = os.path.realpath(request["path"])
        status = os.stat(path)
        block = stat.S_ISBLK(status.st_mode)
        name = os.path.basename(os.path.realpath("/sys/dev/block/%d:%d" % split(status.st_rdev))) if block else ""
        return {"path": path, "block": block, "name": name}

    def op_openers(self, request, payload):
        """Who else has a disk or one of its partitions open: {pid: name}. That asks for root; without, what can be seen."""
        devices = set()
        for path in [request["path"]] + request["partitions"]:
            try:
                devices.add(os.stat(path).st_rdev)
            except OSError:
                pass
        found = {}
        for link in glob.iglob("/proc/[0-9]*/fd/*"):
            pid = link.split("/")[2]
            try:
                status = os.stat(link)
                if int(pid) != os.getpid() and stat.S_ISBLK(status.st_mode) and status.st_rdev in devices:
                    found[pid] = self._text("/proc/%s/comm" % pid).strip()
            except OSError:
                pass
        return {"openers": found}

    def op_freeze(self, request, payload):
        freezer = Freezer(request["mounts"], request["seconds"])
        with self.lock:
            handle, self.next = self.next, self.next + 1
            self.freezers[handle] = freezer
        return {"handle": handle, "skipped": freezer.skipped}

    def op_thaw(self, request, payload):
        return {"was_frozen": self.freezers.pop(request["handle"]).thaw()}

    def op_free(self, request, payload):
        """Ranges [start, end) of a device that the file system mounted at ``mount`` does not use, by itself: getfsmap."""
        fd = os.open(request["mount"], os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            return {"ranges": list(free_ranges(fd)), "device": "%d:%d" % split(os.fstat(fd).st_dev)}
        finally:
            os.close(fd)

    def op_files(self, request, payload):
        """What the machine says of itself in /sys, /proc and /dev: {path: text}, of a link its target.

        What cannot be read is left out.
        """
        found = {}
        for pattern in request["patterns"]:
            for path in sorted(glob.glob(pattern)):
                try:
                    found[path] = self._text(path)
                except (OSError, ValueError):
                    pass
        return {"files": found}

    @staticmethod
    def _text(path):
        if os.path.islink(path):
            return os.path.realpath(path)
        with open(path, "rb") as file:
            return file.read(LARGEST_TEXT).decode("utf-8", "replace")


def any_set(data):
    """Whether a byte is not zero; most data shows it in its first page."""
    head = bytes(data[:ALIGN])
    return head != bytes(len(head)) or bytes(data) != bytes(len(data))


def main():
    source, sink = sys.stdin.buffer, sys.stdout.buffer
    sys.stdout = sys.stderr
    signal.signal(signal.SIGPIPE, signal.SIG_DFL)
    server = Server(source, sink)
    server.run()
    with server.lock:  # no answer is cut in its middle; who still works has nobody left to tell
        os._exit(0)


if __name__ == "__main__":
    main()
