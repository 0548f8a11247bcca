"""What the measurements share: who is measured, how cold is made, and how numbers are told."""

import contextlib
import hashlib
import json
import os
import pathlib
import platform
import random
import re
import shutil
import sqlite3
import subprocess
import sys
import tempfile
import time

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[2] / "tests/suites"))
import stage  # noqa: E402  The mounts are those of the suites.

from .report import OURS, Curves, Table  # noqa: E402

MIB = 1 << 20
PAGE_BYTES = 8192
RESULTS = stage.ROOT / "target/benches"


class Work:
    """A folder on the disk for one run of a measurement; deleted at its very end.

    No small file is deleted before: ext4 creates files several times slower right after a mass deletion, which would be
    measured as somebody's slowness.
    """

    def __init__(self, place):
        self.path = pathlib.Path(tempfile.mkdtemp(prefix="comb-bench-", dir=place))
        self.path.chmod(0o755)
        self.number = 0
        # Small synced writes a second.
        self.best_rate = 0.0

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


def remove_large(place):
    """Deletes the large files of somebody who is unmounted: the disk shall have room for the others."""
    for folder, _, names in os.walk(place):
        for name in names:
            path = os.path.join(folder, name)
            if os.lstat(path).st_size >= MIB:
                os.unlink(path)


def drop_caches():
    """Forgets every clean page, name and inode of the kernel."""
    os.sync()
    pathlib.Path("/proc/sys/vm/drop_caches").write_text("3\n")


def stored_bytes(state):
    """What replication would move: the bytes of all packs and manifests of a state folder."""
    total = 0
    for name in ("packs", "manifests"):
        for folder in pathlib.Path(state).glob(f"volumes/*/{name}"):
            total += sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
    return total


def busy_seconds():
    """The seconds that the machine's cores were busy so far, whoever it was: FUSE servers and the kernel's workers as well."""
    fields = [int(field) for field in pathlib.Path("/proc/stat").read_text(encoding="ascii").split("\n", 1)[0].split()[1:8]]
    # All but idle and waiting for a disk.
    return (sum(fields) - fields[3] - fields[4]) / os.sysconf("SC_CLK_TCK")


def binary(name):
    """A program of this crate."""
    target = pathlib.Path(os.environ.get("CARGO_TARGET_DIR", stage.ROOT / "target"))
    return target / "release" / name


def build():
    """The programs that are measured and that measure."""
    packages = ["-p", "comb-benches", *(() if os.environ.get("COMB") else ("-p", "comb"))]
    subprocess.run(["cargo", "build", "--quiet", "--release", "--locked", *packages], cwd=stage.ROOT, check=True)


def small_files(folder, folders, files, size, seed):
    """Creates files; returns the seconds it took."""
    return float(stage.run(binary("smallfiles"), "make", folder, folders, files, size, seed, timeout=3600))


def check_small_files(folder, folders, files, size, seed):
    """Fails unless they hold what was written."""
    stage.run(binary("smallfiles"), "check", folder, folders, files, size, seed, timeout=3600)


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


def settle(work, patience):
    """Waits until the disk of a run takes small synced writes at half the best rate of that run; returns whether it does.

    At most `patience` seconds. A virtual disk has what was written long before on its way for a while, and whoever is measured
    then pays for others.
    """
    os.sync()
    until, block = time.monotonic() + patience, os.urandom(4096)
    with open(work.path / "settle", "wb", buffering=0) as file:
        while True:
            begin = time.monotonic()
            for _ in range(200):
                os.pwrite(file.fileno(), block, 0)
                os.fdatasync(file.fileno())
            rate = 200 / (time.monotonic() - begin)
            work.best_rate = max(work.best_rate, rate)
            if rate >= work.best_rate / 2:
                return True
            if time.monotonic() > until:
                return False
            time.sleep(1)


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
    new = [(place, page(chance, kind)) for place in chance.sample(range(pages), count)]
    descriptor = os.open(path, os.O_WRONLY)
    for place, data in new:
        os.pwrite(descriptor, data, place * PAGE_BYTES)
    os.fsync(descriptor)
    os.close(descriptor)
    return count * PAGE_BYTES


# How each that is measured, or measures, tells its version.
VERSIONS = {
    "comb": [], "restic": ["version"], "borg": ["--version"], "rustic": ["--version"], "mkfs.btrfs": ["--version"],
    "gocryptfs": ["--version"], "cryfs": ["--version"], "age": ["--version"], "zstd": ["--version"], "fio": ["--version"],
    "git": ["--version"], "psql": ["--version"],
}  # fmt: skip


def versions():
    """The versions of those that are there."""
    found = {}
    for name, words in VERSIONS.items():
        try:
            program, words = (stage.Comb.binary(), ["--version"]) if name == OURS else (stage.tool(name, "/sbin"), words)
        except stage.Skipped:
            continue
        said = re.search(r"\d+(\.\d+)+", stage.run(program, *words, check=False, env=os.environ | {"CRYFS_FRONTEND": "noninteractive"}))
        found[name] = said[0] if said else "?"
    return found | {"SQLite": sqlite3.sqlite_version}


def machine():
    """The machine and the commit."""
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


def where():
    """What the numbers were measured on, and with."""
    return machine() | {"versions": versions()}


def write(name, result):
    """Keeps a result as JSON beside the earlier ones; returns where."""
    RESULTS.mkdir(parents=True, exist_ok=True)
    path = RESULTS / f"{name}.json"
    path.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    return path


def new_sum():
    """The hash of what is to come."""
    return hashlib.blake2b()


def sum_of(path):
    """The hash of a file."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, new_sum).hexdigest()


def postgres():
    """The folder of PostgreSQL's programs, the newest."""
    found = sorted(pathlib.Path("/usr/lib/postgresql").glob("*/bin"), key=lambda path: int(path.parent.name))
    if not found or "postgres" not in (one.pw_name for one in stage.pwd.getpwall()):
        raise stage.Skipped("PostgreSQL is not installed (`benches/peers`)")
    return found[-1]


class Context:
    """What a part of the measurements is given."""

    def __init__(self, work, size, only=(), subjects=(), repetitions=None):
        # `size` is "long", "short" or "guard", the smallest; `only` names rows, `subjects` who is measured; all without.
        self.work, self.size, self.only, self.subjects = work, size, set(only), set(subjects)
        self.repetitions = repetitions or {"long": 3, "short": 2, "guard": 2}[size]
        # How long a measurement waits for the disk to come to rest.
        self.patience = 5 if size == "guard" else 60
        # `known` are all rows and subjects that the part has.
        self.tables, self.known = [], set()

    def of(self, long, short, guard=None):
        """How much of something there is in this form."""
        return {"long": long, "short": short, "guard": short if guard is None else guard}[self.size]

    def wants(self, row):
        """Whether a row is measured."""
        self.known.add(row)
        return not self.only or row in self.only

    def chosen(self, subjects):
        """Those of these who are measured."""
        self.known.update(subjects)
        return [one for one in subjects if not self.subjects or one in self.subjects]

    def table(self, title, subjects=(OURS,)):
        """A new table of the report."""
        self.tables.append(Table(title, list(subjects)))
        return self.tables[-1]

    def curves(self, title, axis):
        """New curves of the report."""
        self.tables.append(Curves(title, axis))
        return self.tables[-1]
