"""Those who are measured on a mount: a folder to work in, and a way to make it cold."""

import contextlib
import os
import pathlib
import shutil

from . import measure
from .measure import stage

PASSWORD = "measured, not secret"
# Debian unstable, which has S3QL; `benches/peers` makes it.
SID = pathlib.Path(os.environ.get("CARGO_TARGET_DIR", stage.ROOT / "target")) / "benches/sid"
BTRFS_GIB = 24


class Subject:
    """One of those that are measured, mounted."""

    def __init__(self, work):
        self.place = work.fresh(self.name)
        self.root, self.number = self.place / "mount", 0
        self.root.mkdir()
        self.prepare()
        self.mount()

    def prepare(self):
        """Makes what is mounted."""

    def mount(self):
        """Mounts; returns when the mount answers."""

    def unmount(self):
        """Unmounts; returns when all is on the disk."""

    def fresh(self):
        """A new folder in it."""
        self.number += 1
        path = self.root / f"t{self.number}"
        path.mkdir()
        return path

    def cold(self):
        """Nothing is in memory: neither the kernel's nor a daemon's."""
        self.unmount()
        measure.drop_caches()
        self.mount()

    def pids(self):
        """The processes that serve it."""
        return []

    def status(self, pid):
        lines = pathlib.Path(f"/proc/{pid}/status").read_text(encoding="ascii", errors="replace").splitlines()
        return {line.split(":")[0]: line.split()[1] for line in lines if line.startswith(("VmRSS", "VmHWM"))}

    def memory_mib(self):
        """Its processes' memory now and at its highest; None where none serves it."""
        found = [self.status(pid) for pid in self.pids()]
        return tuple(round(sum(int(one[key]) for one in found) / 1024, 1) if found else None for key in ("VmRSS", "VmHWM"))

    def processor_seconds(self):
        """The processor time that its processes took so far."""
        total = 0
        for pid in self.pids():
            # Behind the name, which may hold anything: the 12th and 13th are user and system time.
            fields = pathlib.Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
            total += int(fields[11]) + int(fields[12])
        return total / os.sysconf("SC_CLK_TCK")

    def end(self):
        """Unmounts for good."""
        self.unmount()


class Staged(Subject):
    """One that the suites can mount, too."""

    def prepare(self):
        self.mounted = self.stage(self.place / "state", self.root, self.place / "log")
        self.mounted.create()

    def mount(self):
        self.mounted.mount()

    def unmount(self):
        self.mounted.unmount()

    def pids(self):
        return [self.mounted.daemon.pid] if self.mounted.daemon else []


class Comb(Staged):
    name, stage = "comb", stage.Comb

    def comb(self, *words, **more):
        return self.mounted.comb(*words, **more)


class Ext4(Staged):
    name, stage = "ext4", stage.Plain


class Server(Staged):
    """`fusenull`: `null` throws data away, `ram` keeps them in memory, `null+sync` waits for one fdatasync at each fsync."""

    def stage(self, state, root, log):
        more = ["--fdatasync", self.place / "sync-file"] if self.name.endswith("+sync") else []
        return stage.Ram(state, root, log, mode=self.name.removesuffix("+sync"), more=more)

    def cold(self):
        """It would lose everything."""
        measure.drop_caches()


class Null(Server):
    name = "null"


class NullSync(Server):
    name = "null+sync"


class Ram(Server):
    name = "ram"


class Btrfs(Subject):
    """In a file on the disk, through a loop device with direct I/O."""

    name = "btrfs"

    def prepare(self):
        tool = stage.tool("mkfs.btrfs", "/sbin")
        image = self.place / "image"
        free = shutil.disk_usage(self.place).free >> 30
        stage.run("fallocate", "-l", f"{min(BTRFS_GIB, free * 2 // 3)}G", image)
        self.device = stage.run("losetup", "--find", "--show", "--direct-io=on", image).strip()
        stage.run(tool, "-q", self.device)

    def mount(self):
        stage.run("mount", self.device, self.root)

    def unmount(self):
        stage.run("umount", self.root)

    def end(self):
        self.unmount()
        stage.run("losetup", "--detach", self.device)


class Daemon(Subject):
    """One with a program of its own that stays while it is mounted."""

    def start(self, *words, stdin=None):
        log = self.place / "log"
        if stdin:
            # `sh` hands its process on.
            words = ["sh", "-c", 'input=$1; shift; exec "$@" < "$input"', "sh", stdin, *words]
        self.process = stage.start(*words, log=log, env=os.environ | {"CRYFS_FRONTEND": "noninteractive", "CRYFS_NO_UPDATE_CHECK": "true"})
        stage.wait_until(lambda: stage.is_mount(self.root) or self.process.poll() is not None, f"mounting {self.name}")
        stage.expect(self.process.poll() is None, f"{self.name} ended while mounting: {log.read_text(errors='replace')[-500:]}")

    def unmount(self):
        os.sync()
        stage.run("umount", self.root)
        self.process.wait(timeout=600)

    def pids(self):
        return [self.process.pid]

    def password(self, lines=1):
        path = self.place / "password"
        path.write_text(f"{PASSWORD}\n" * lines, encoding="ascii")
        return path


class Gocryptfs(Daemon):
    name = "gocryptfs"

    def prepare(self):
        self.cipher = self.place / "cipher"
        self.cipher.mkdir()
        stage.run(stage.tool("gocryptfs"), "-init", "-q", "-passfile", self.password(), self.cipher)

    def mount(self):
        self.start(stage.tool("gocryptfs"), "-fg", "-q", "-allow_other", "-passfile", self.password(), self.cipher, self.root)


class Cryfs(Daemon):
    name = "cryfs"

    def prepare(self):
        self.tool = stage.tool("cryfs")

    def mount(self):
        words = ["-f", "--create-missing-basedir", self.place / "cipher", self.root, "-o", "allow_other"]
        self.start(self.tool, *words, stdin=self.password(2))


class S3ql(Daemon):
    """With a store in a folder. It runs in the root of another Debian, below which the mount is bound."""

    name = "s3ql"

    def prepare(self):
        if not (SID / "usr/bin/mount.s3ql").exists():
            raise stage.Skipped("S3QL is not installed (`benches/peers`)")
        # Mounts lie in the other root, and are seen from here.
        self.inside = pathlib.Path("/srv") / f"{self.place.parent.name}-{self.place.name}"
        (SID / self.inside.relative_to("/")).mkdir(parents=True)
        for folder in ("store", "cache", "mount"):
            self.outside(folder).mkdir()
        self.root.rmdir()
        self.root.symlink_to(self.outside("mount"))
        self.root = self.outside("mount")
        self.url = f"local://{self.inside}/store"
        auth = self.outside("auth")
        auth.write_text(f"[all]\nstorage-url: local://\nfs-passphrase: {PASSWORD}\n", encoding="ascii")
        auth.chmod(0o600)
        self.common = ["--cachedir", self.inside / "cache", "--authfile", self.inside / "auth"]
        shutil.move(self.password(2), self.outside("password"))
        self.in_sid("sh", "-c", 'input=$1; shift; exec "$@" < "$input"', "sh", self.inside / "password", "mkfs.s3ql", *self.common, self.url)

    def outside(self, name):
        return SID / self.inside.relative_to("/") / name

    def in_sid(self, *words):
        return stage.run("chroot", SID, *words, timeout=3600)

    def mount(self):
        dev = SID / "dev/fuse"
        if not dev.exists():
            stage.run("mknod", "-m", "666", dev, "c", "10", "229")
        words = ["mount.s3ql", "--fg", "--allow-other", "--compress", "zlib-1", "--log", self.inside / "log"]
        self.start("chroot", SID, *words, *self.common, self.url, self.inside / "mount")

    def unmount(self):
        self.in_sid("umount.s3ql", self.inside / "mount")
        self.process.wait(timeout=600)

    def objects(self):
        """What the system says of each object of the store."""
        found = []
        for path in self.outside("store").rglob("*"):
            # It removes some meanwhile.
            with contextlib.suppress(FileNotFoundError):
                if path.is_file():
                    found.append(path.stat())
        return found

    def end(self):
        self.unmount()
        shutil.rmtree(SID / self.inside.relative_to("/"))


ALL = {one.name: one for one in (Ext4, Btrfs, Gocryptfs, Cryfs, S3ql, Null, NullSync, Ram, Comb)}
