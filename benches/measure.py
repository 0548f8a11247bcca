"""What the measurements share: who is measured, how cold is made, and how numbers are told."""

import contextlib
import json
import os
import pathlib
import platform
import random
import shutil
import statistics
import subprocess
import sys
import tempfile
import time

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "tests/suites"))
import stage  # noqa: E402  The mounts are those of the suites.

MIB = 1 << 20
PAGE_BYTES = 8192
RESULTS = stage.ROOT / "target/benches"


class Work:
    """A folder on the disk for one run of a measurement; deleted at its very end.

    Nothing is deleted before: ext4 creates files several times slower right after a mass deletion, which would be measured
    as somebody's slowness.
    """

    def __init__(self, place):
        self.path = pathlib.Path(tempfile.mkdtemp(prefix="comb-bench-", dir=place))
        self.path.chmod(0o755)
        self.number = 0

    def fresh(self, name):
        """A new folder."""
        self.number += 1
        path = self.path / f"{self.number}-{name}"
        path.mkdir()
        return path

    def remove(self):
        """Deletes all of it."""
        stage.unmount_below(self.path)
        shutil.rmtree(self.path, ignore_errors=True)


def drop_caches():
    """Forgets every clean page, name and inode of the kernel."""
    os.sync()
    pathlib.Path("/proc/sys/vm/drop_caches").write_text("3\n")


class Subject:
    """One of those that are measured: a folder to work in, and a way to make it cold."""

    def __init__(self, name, work):
        self.name, self.number = name, 0
        place = work.fresh(name)
        where, log = place / "mount", place / "log"
        if name == "ext4":
            self.mounted = stage.Plain(None, where, log)
        elif name == "comb":
            self.mounted = stage.Comb(place / "state", where, log)
        else:
            # null, ram, and null+sync, which waits for one fdatasync at each fsync.
            more = ["--fdatasync", place / "sync-file"] if name.endswith("+sync") else []
            self.mounted = stage.Ram(None, where, log, mode=name.removesuffix("+sync"), more=more)
        self.mounted.create()
        self.mounted.mount()
        self.root = self.mounted.mount_point

    def fresh(self):
        """A new folder in it."""
        self.number += 1
        path = self.root / f"t{self.number}"
        path.mkdir()
        return path

    def cold(self):
        """Nothing is in memory: neither the kernel's nor a daemon's."""
        if self.name == "comb":
            self.mounted.unmount()
        drop_caches()
        if self.name == "comb":
            self.mounted.mount()

    def memory_mib(self):
        """The daemon's memory now and at its highest."""
        if not self.mounted.daemon:
            return None, None
        lines = pathlib.Path(f"/proc/{self.mounted.daemon.pid}/status").read_text().splitlines()
        values = {line.split(":")[0]: line.split()[1] for line in lines if line.startswith(("VmRSS", "VmHWM"))}
        return round(int(values["VmRSS"]) / 1024, 1), round(int(values["VmHWM"]) / 1024, 1)

    def processor_seconds(self):
        """The processor time that the daemon took so far."""
        # Behind the name, which may hold anything: the 12th and 13th are user and system time.
        fields = pathlib.Path(f"/proc/{self.mounted.daemon.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def end(self):
        """Unmounts."""
        self.mounted.unmount()


def stored_bytes(state):
    """What replication would move: the bytes of all packs and manifests of a state folder."""
    total = 0
    for name in ("packs", "manifests"):
        for folder in pathlib.Path(state).glob(f"volumes/*/{name}"):
            total += sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
    return total


def binary(name):
    """A program of this crate."""
    target = pathlib.Path(os.environ.get("CARGO_TARGET_DIR", stage.ROOT / "target"))
    return target / "release" / name


def build(subjects):
    """The programs that are measured and that measure."""
    packages = ["-p", "comb-benches"]
    if "comb" in subjects and not os.environ.get("COMB"):
        packages += ["-p", "comb"]
    subprocess.run(["cargo", "build", "--quiet", "--release", *packages], cwd=stage.ROOT, check=True)


def small_files(folder, folders, files, size, seed):
    """Creates files; returns the seconds it took."""
    return float(stage.run(binary("smallfiles"), folder, folders, files, size, seed, timeout=3600))


@contextlib.contextmanager
def still():
    """Keeps others of the machine still while something is measured.

    $COMB_BENCH_STILL, if it is set, is a program that is run with `on` before and with `off` behind it.
    """
    program = os.environ.get("COMB_BENCH_STILL")
    if program:
        stage.run(program, "on")
    try:
        yield
    finally:
        if program:
            stage.run(program, "off")


def seconds(call):
    """How long a call took."""
    begin = time.monotonic()
    call()
    return time.monotonic() - begin


def page(chance, kind):
    """A database page: incompressible, or half table-like text, which zstd makes 0.67 of its size."""
    if kind == "incompressible":
        return chance.randbytes(PAGE_BYTES)
    rows = b"".join(
        b"row id=%010d user=%06d balance=%08d state=OPEN  \n"
        % (chance.getrandbits(30), chance.getrandbits(19), chance.getrandbits(26))
        for _ in range(PAGE_BYTES // 2 // 53 + 1)
    )
    return chance.randbytes(PAGE_BYTES // 2) + rows[: PAGE_BYTES // 2]


def overwrite(path, seed, pages, count, kind):
    """Overwrites random pages of a file and syncs it; returns the bytes dirtied."""
    chance = random.Random(seed)
    new = [(number, page(chance, kind)) for number in chance.sample(range(pages), count)]
    descriptor = os.open(path, os.O_WRONLY)
    for number, data in new:
        os.pwrite(descriptor, data, number * PAGE_BYTES)
    os.fsync(descriptor)
    os.close(descriptor)
    return count * PAGE_BYTES


def median(values):
    """The middle of what was measured; None of nothing."""
    return statistics.median(values) if values else None


def number(value):
    """A number as a reader wants it."""
    if value is None:
        return "–"
    if value >= 100:
        return f"{value:,.0f}"
    return f"{value:.3g}"


def where():
    """What the numbers were measured on."""
    commit = stage.run("git", "-C", stage.ROOT, "rev-parse", "--short", "HEAD", check=False).strip()
    processor = next(
        (line.split(":")[1].strip() for line in open("/proc/cpuinfo", encoding="utf-8") if line.startswith("model name")), "?"
    )
    return {
        "date": time.strftime("%Y-%m-%d"),
        "commit": commit,
        "kernel": platform.release(),
        "processor": processor,
        "cores": os.cpu_count(),
        "memory_gib": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / (1 << 30)),
    }


def write(name, result):
    """Keeps a result as JSON beside the earlier ones."""
    RESULTS.mkdir(parents=True, exist_ok=True)
    path = RESULTS / f"{name}-{time.strftime('%Y%m%d-%H%M%S')}.json"
    path.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    print(f"\nraw numbers: {path}")
