"""How fast a mount is: Comb beside ext4, beside FUSE servers that do nothing, and beside filesystems that encrypt or take snapshots.

Each row is measured for all of its subjects in turn, several times. Cold means unmounted, caches dropped, and mounted again. What is
written is read back and compared once a row is through.
"""

import json
import os
import pathlib
import random
import sqlite3
import subprocess
import sys
import tarfile

from . import filesystems, measure, report
from .measure import MIB, stage


class Rows:
    """A method makes one measurement of one subject and returns its value."""

    def __init__(self, context):
        self.work = context.work
        self.sequential_mib = context.of(1024, 256, 128)
        self.journals_mib = context.of(4 * 2048, 1024, 512)
        self.fio_seconds = context.of(4, 1)
        self.buffered_mib = context.of(256, 64, 32)
        self.file_count, self.folder_count = context.of((20_000, 200), (4_000, 40), (2_000, 20))
        self.tree_entries = context.of(16_700, 3_000, 1_500)
        self.commits = context.of(5_000, 1_000, 500)
        self.pgbench_scale, self.pgbench_seconds = context.of((10, 20), (2, 4))
        self.trees, self.files, self.seeds = {}, {}, {}
        # Unlike the blocks of a repeated buffer, none of these can be deduplicated.
        self.random = os.urandom(self.sequential_mib * MIB)
        self.tar = None

    def forget(self):
        """Between two rows: each begins with subjects of its own."""
        self.trees, self.files, self.seeds = {}, {}, {}

    # Bulk.

    def sequential_write(self, subject):
        path = self.files[subject.name] = subject.fresh() / "big"
        view = memoryview(self.random)

        def write():
            descriptor = os.open(path, os.O_WRONLY | os.O_CREAT, 0o644)
            for offset in range(0, len(view), MIB):
                os.write(descriptor, view[offset : offset + MIB])
            os.fsync(descriptor)
            os.close(descriptor)

        return self.sequential_mib / measure.seconds(write)

    def check_sequential_write(self, subject):
        with open(self.files[subject.name], "rb", buffering=0) as file:
            for offset in range(0, len(self.random), MIB):
                stage.expect(file.read(MIB) == self.random[offset : offset + MIB], f"{subject.name}: other bytes at {offset}")

    check_sequential_read_cold = check_random_read_cold = check_random_read_warm = check_sequential_write

    def write_through(self, subject):
        """Four times what the journal holds, so that sealing has to keep up; per second of the daemon's processor time."""
        before = subject.processor_seconds()
        with open(subject.fresh() / "huge", "wb", buffering=0) as file:
            for _ in range(self.journals_mib // 64):
                block = memoryview(os.urandom(64 * MIB))
                for offset in range(0, len(block), MIB):
                    file.write(block[offset : offset + MIB])
            os.fsync(file.fileno())
        return self.journals_mib / (subject.processor_seconds() - before)

    def big_file(self, subject):
        if subject.name not in self.files:
            self.sequential_write(subject)
        return self.files[subject.name]

    def read(self, path):
        buffer = bytearray(MIB)
        with open(path, "rb", buffering=0) as file:
            while file.readinto(buffer):
                pass

    def sequential_read_cold(self, subject):
        path = self.big_file(subject)
        subject.cold()
        return self.sequential_mib / measure.seconds(lambda: self.read(path))

    def fio(self, path, *words):
        words = [
            stage.tool("fio"), "--name=row", f"--filename={path}", f"--size={self.sequential_mib}m", "--bs=4k", "--ioengine=psync",
            "--thread", "--invalidate=0", "--norandommap", "--time_based", f"--runtime={self.fio_seconds}", "--output-format=json", *words,
        ]  # fmt: skip
        output = stage.run(*words)
        return json.loads(output[output.index("{") :])["jobs"][0]

    def random_read_warm(self, subject):
        path = self.big_file(subject)
        self.read(path)
        return self.fio(path, "--rw=randread")["read"]["iops"]

    def random_read_cold(self, subject):
        path = self.big_file(subject)
        subject.cold()
        return self.fio(path, "--rw=randread")["read"]["iops"]

    def random_write_synced(self, subject):
        return self.fio(self.big_file(subject), "--rw=randwrite", "--fsync=1")["write"]["iops"]

    def places(self):
        chance, blocks = random.Random(7), len(self.random) // 4096
        return [chance.randrange(blocks) * 4096 for _ in range(self.buffered_mib * 256)]

    def random_write_buffered(self, subject):
        path, places, view = self.big_file(subject), self.places(), memoryview(self.random)

        def write():
            descriptor = os.open(path, os.O_WRONLY)
            for number, place in enumerate(places):
                os.pwrite(descriptor, view[number * 4096 : number * 4096 + 4096], place)
            os.fsync(descriptor)
            os.close(descriptor)

        return self.buffered_mib / measure.seconds(write)

    def check_random_write_buffered(self, subject):
        newest = {place: number for number, place in enumerate(self.places())}
        with open(self.files[subject.name], "rb") as file:
            for offset in range(0, len(self.random), 4096):
                written = newest.get(offset, offset // 4096) * 4096
                same = file.read(4096) == self.random[written : written + 4096]
                stage.expect(same, f"{subject.name}: other bytes at {offset}")

    # Small files.

    def create(self, subject):
        folder = self.trees[subject.name] = subject.fresh() / "small"
        seed = self.seeds[folder] = random.SystemRandom().getrandbits(48)
        return self.file_count / measure.small_files(folder, self.folder_count, self.file_count, 4096, seed)

    def check_create(self, subject):
        folder = self.trees[subject.name]
        measure.check_small_files(folder, self.folder_count, self.file_count, 4096, self.seeds[folder])

    def remove(self, subject):
        self.create(subject)
        folder = self.trees.pop(subject.name)
        return self.file_count / measure.seconds(lambda: stage.run("rm", "-r", folder))

    def small_tree(self, subject):
        if subject.name not in self.trees:
            self.create(subject)
        return self.trees[subject.name]

    def find(self, folder):
        words = ["find", folder, "-type", "f", "-printf", "%s %T@\n"]
        return measure.seconds(lambda: subprocess.run(words, stdout=subprocess.DEVNULL, check=True))

    def find_cold(self, subject):
        folder = self.small_tree(subject)
        subject.cold()
        return self.find(folder)

    def find_warm(self, subject):
        folder = self.small_tree(subject)
        self.find(folder)
        return self.find(folder)

    def read_all_cold(self, subject):
        folder = self.small_tree(subject)
        subject.cold()
        command = 'find "$1" -type f -print0 | xargs -0 cat > /dev/null'
        return measure.seconds(lambda: subprocess.run(["sh", "-c", command, "sh", folder], check=True))

    def source_tree(self):
        """An archive of a git repository of this many entries, made of files of this machine."""
        if self.tar:
            return self.tar
        folder = self.work.fresh("source")
        tree, wanted = folder / "tree", self.tree_entries
        tree.mkdir()
        home = pathlib.Path(os.environ.get("CARGO_HOME", pathlib.Path.home() / ".cargo"))
        count = 0
        for source in (home / "registry/src", pathlib.Path("/usr/include"), pathlib.Path("/usr/lib/python3"), pathlib.Path("/usr/share")):
            for path in sorted(source.rglob("*")):
                if count >= wanted:
                    break
                if path.is_file() and not path.is_symlink() and path.stat().st_size < 200_000:
                    target = tree / path.relative_to(source.parent)
                    # Each folder made is an entry, too.
                    missing = [one for one in target.parents if one.is_relative_to(tree) and not one.exists()]
                    target.parent.mkdir(parents=True, exist_ok=True)
                    target.write_bytes(path.read_bytes())
                    count += 1 + len(missing)
        who = ["-c", "user.name=bench", "-c", "user.email=bench@localhost", "-c", "gc.auto=0"]
        stage.run("git", "-C", tree, "init", "-q")
        stage.run("git", "-C", tree, *who, "add", "-A", "-f")
        stage.run("git", "-C", tree, *who, "commit", "-q", "-m", "all")
        stage.run("git", "-C", tree, "gc", "-q")
        tar = folder / "tree.tar"
        stage.run("tar", "-c", "-f", tar, "-C", folder, "tree")
        with tarfile.open(tar) as archive:
            print(f"the source tree has {len(archive.getmembers())} entries, {tar.stat().st_size / MIB:.0f} MiB", file=sys.stderr)
        self.tar = tar
        return tar

    def untar(self, subject):
        tar = self.source_tree()
        folder = subject.fresh()
        self.trees[f"{subject.name} git"] = folder / "tree"
        with open(tar, "rb") as file:
            while file.read(MIB):
                pass  # The archive is in memory.
        return measure.seconds(lambda: stage.run("tar", "-x", "--no-same-owner", "-f", tar, "-C", folder))

    def git_status(self, subject):
        if f"{subject.name} git" not in self.trees:
            self.untar(subject)
        tree = self.trees[f"{subject.name} git"]

        def status():
            output = stage.run("git", "-c", "safe.directory=*", "-C", tree, "status", "--porcelain")
            stage.expect(output == "", f"{subject.name}: the unpacked tree has changes: {output[:200]}")

        # The first reads every file, since the index knows none of these inodes.
        status()
        status()
        return measure.seconds(status)

    def sqlite(self, subject, mode):
        connection = sqlite3.connect(subject.fresh() / "base.db", isolation_level=None)
        have = connection.execute(f"pragma journal_mode={mode}").fetchone()[0].upper()
        stage.expect(have == mode, f"{subject.name}: SQLite chose journal mode {have}")
        connection.execute("pragma synchronous=full")
        connection.execute("create table t (id integer primary key, k text, v blob)")
        rows = [(f"key{number}", os.urandom(100)) for number in range(self.commits)]

        def commit():
            for row in rows:
                connection.execute("insert into t (k, v) values (?, ?)", row)

        taken = measure.seconds(commit)
        count = connection.execute("select count(*) from t").fetchone()[0]
        state = connection.execute("pragma integrity_check").fetchone()[0]
        stage.expect((count, state) == (self.commits, "ok"), f"{subject.name}: SQLite has {count} rows and says {state}")
        connection.close()
        return self.commits / taken

    def sqlite_wal(self, subject):
        return self.sqlite(subject, "WAL")

    def sqlite_delete(self, subject):
        return self.sqlite(subject, "DELETE")

    def pgbench(self, subject):
        programs = sorted(pathlib.Path("/usr/lib/postgresql").glob("*/bin"), key=lambda path: int(path.parent.name))[-1]
        folder = subject.fresh()
        data, user = folder / "data", "postgres"
        data.mkdir(mode=0o700)
        subject.root.chmod(0o755)
        os.chown(data, *(stage.pwd.getpwnam(user)[2:4]))
        stage.run(programs / "initdb", "-D", data, "-A", "trust", user=user)
        # No TCP, and the socket where user postgres may make one.
        settings = "-k /tmp -p 15999 -c listen_addresses= -c shared_buffers=128MB"
        control = [programs / "pg_ctl", "-D", data, "-w", "-l", "/dev/null"]
        stage.run(*control, "-o", settings, "start", user=user)
        try:
            client = [programs / "pgbench", "-h", "/tmp", "-p", "15999"]
            stage.run(*client, "-i", "-q", "-s", self.pgbench_scale, "postgres", user=user)
            output = stage.run(*client, "-c", 2, "-j", 2, "-T", self.pgbench_seconds, "postgres", user=user)
            sums = "select (select sum(abalance) from pgbench_accounts) = (select coalesce(sum(delta), 0) from pgbench_history)"
            answer = stage.run(programs / "psql", "-h", "/tmp", "-p", "15999", "-X", "-A", "-t", "-c", sums, "postgres", user=user)
            stage.expect(answer.strip() == "t", f"{subject.name}: the sums of pgbench differ")
        finally:
            stage.run(*control, "-m", "immediate", "stop", user=user, check=False)
        return float(next(line for line in output.splitlines() if line.startswith("tps")).split()[2])


# What others are measured on: all that mount what they keep. Once each: no goal hangs on them, and some are slow.
PEERS = "btrfs gocryptfs cryfs s3ql"
# Method, name, unit, whom beside the peers, goals as `report.Row` has them.
ROWS = [
    ("sequential_write", "sequential write, fsync at the end", "MiB/s", "ext4 ram comb", [("ram", 0.9)]),
    ("write_through", "4 × the journal's size, per second of the daemon's processor time", "MiB/s", "comb", [(None, 286)]),
    ("sequential_read_cold", "sequential read, cold", "MiB/s", "ext4 comb", [("ext4", 0.8)]),
    ("random_read_cold", "4 KiB random read, cold", "IOPS", "ext4 comb", []),
    ("random_read_warm", "4 KiB random read, warm", "IOPS", "ext4 null comb", [("null", 0.9)]),
    ("random_write_synced", "4 KiB random write, fsync each", "IOPS", "ext4 null+sync comb", [("null+sync", 0.8), ("ext4", 0.5)]),
    ("random_write_buffered", "4 KiB random write, buffered", "MiB/s", "ext4 null comb", [("ext4", 0.5)]),
    ("create", "create small files", "files/s", "ext4 null comb", [("null", 0.8)]),
    ("find_cold", "find + stat, cold", "s", "ext4 comb", [(None, 0.3)]),
    ("find_warm", "find + stat, warm", "s", "ext4 ram comb", [(None, 0.06)]),
    ("read_all_cold", "read all small files, cold", "s", "ext4 comb", [("ext4", 1)]),
    ("remove", "remove small files", "files/s", "ext4 null comb", []),
    ("untar", "unpack a source tree", "s", "ext4 null comb", [("ext4", 3), ("null", 1.25)]),
    ("git_status", "`git status` again", "s", "ext4 ram comb", [("ext4", 2)]),
    ("sqlite_wal", "SQLite commits, WAL", "1/s", "ext4 ram comb", [("ext4", 0.5)]),
    ("sqlite_delete", "SQLite commits, DELETE", "1/s", "ext4 ram comb", [("ext4", 0.8)]),
    ("pgbench", "pgbench, 2 clients", "tps", "ext4 ram comb", [("ext4", 0.8)]),
]
# What is made before the clock runs.
MADE_BEFORE = {
    "sequential_read_cold": "big_file",
    "random_read_cold": "big_file",
    "random_read_warm": "big_file",
    "random_write_synced": "big_file",
    "random_write_buffered": "big_file",
    "find_cold": "small_tree",
    "find_warm": "small_tree",
    "read_all_cold": "small_tree",
}
# What these do again and again grows their state; each measurement has a subject of its own.
NO_PEERS = {"write_through"}


def row(context, table, rows, method, name, unit, goals, who):
    """Measures one row; returns it."""
    line, subjects = table.row(name, unit, goals), []
    for one in who:
        try:
            subjects.append(filesystems.ALL[one](context.work))
        except (stage.Skipped, stage.Failed, OSError, subprocess.SubprocessError) as why:
            line.failures[one] = str(getattr(why, "stdout", None) or why)
            print(f"{method}, {one} is left out: {line.failures[one]}", file=sys.stderr)
    rows.forget()
    if method in ("untar", "git_status"):
        rows.source_tree()
    for number in range(context.repetitions):
        # In turn, so that a slow minute of the machine falls on all of them.
        for subject in subjects:
            if number and subject.name in PEERS.split():
                continue
            try:
                if method in MADE_BEFORE:
                    getattr(rows, MADE_BEFORE[method])(subject)
                measure.settle(context.work)
                with measure.still():
                    busy = measure.busy_seconds()
                    value = getattr(rows, method)(subject)
                    busy = measure.busy_seconds() - busy
                line.add(subject.name, value, busy, subject.memory_mib()[1])
            except (stage.Failed, OSError, sqlite3.Error, subprocess.SubprocessError) as failure:
                line.failures[subject.name] = str(getattr(failure, "stdout", None) or failure)
                print(f"{method}, {subject.name}: {line.failures[subject.name]}", file=sys.stderr)
    for subject in subjects:
        try:
            check = getattr(rows, f"check_{method}", None)
            # `null` keeps nothing, and the servers that do lose it when they are made cold.
            if check and not subject.name.startswith("null") and subject.name in line.values:
                if subject.name != "ram":
                    subject.cold()
                check(subject)
            subject.end()
            measure.remove_large(subject.place)
        except (stage.Failed, OSError, subprocess.SubprocessError) as failure:
            line.failures[subject.name] = str(getattr(failure, "stdout", None) or failure)
            print(f"{method}, {subject.name}: {line.failures[subject.name]}", file=sys.stderr)
    print(f"{method}: " + ", ".join(f"{one} {report.number(report.median(runs))}" for one, runs in line.values.items()), file=sys.stderr, flush=True)
    return line


def run(context):
    """All rows, or those that are wanted."""
    table = context.table("On a mount", filesystems.ALL)
    rows = Rows(context)
    for method, name, unit, who, goals in ROWS:
        if context.wants(method):
            others = () if method in NO_PEERS else PEERS.split()
            row(context, table, rows, method, name, unit, goals, context.chosen([*who.split(), *others]))
