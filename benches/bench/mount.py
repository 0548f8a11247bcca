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


BLOCK = 4096


class Rows:
    """A method makes one measurement of one subject and returns its value."""

    def __init__(self, context):
        self.work = context.work
        self.sequential_mib = context.of(1024, 256, 128)
        self.through_mib = context.of(4 * 2048, 3072)
        self.fio_seconds = context.of(4, 1)
        self.buffered_mib = context.of(256, 64, 32)
        self.file_count, self.folder_count = context.of((20_000, 200), (4_000, 40), (2_000, 20))
        self.tree_entries = context.of(16_700, 3_000, 1_500)
        self.commits = context.of(5_000, 1_000, 500)
        self.pgbench_scale, self.pgbench_seconds = context.of((10, 20), (2, 4))
        self.random = bytearray(os.urandom(self.sequential_mib * MIB))
        self.tar = None
        self.forget()

    def forget(self):
        """Between two rows: each begins with subjects of its own."""
        self.trees, self.files, self.seeds, self.sums = {}, {}, {}, {}
        # The mark of a subject's file, and what was written over it: a block and its mark by place.
        self.marks, self.written = {}, {}
        self.repeat(0)

    def repeat(self, number):
        """Before each repetition: no chunk of what is written is one that an earlier one wrote."""
        self.mark, self.busy = number % 256, None
        self.random[::BLOCK] = bytes([self.mark]) * (len(self.random) // BLOCK)

    def block(self, number, mark):
        """A block of what is written, as it was in the repetition of that mark."""
        return bytes([mark]) + self.random[number * BLOCK + 1 : (number + 1) * BLOCK]

    def timed(self, call):
        """How long what is measured took; notes for how long the machine's cores were busy meanwhile."""
        busy = measure.busy_seconds()
        taken = measure.seconds(call)
        self.busy = measure.busy_seconds() - busy
        return taken

    def run(self, *words, **more):
        """Runs a program that measures; returns what it printed."""
        output = []
        self.timed(lambda: output.append(stage.run(*words, **more)))
        return output[0]

    # Bulk.

    def sequential_write(self, subject):
        path = self.files[subject.name] = subject.fresh() / "big"
        self.marks[subject.name], self.written[subject.name] = self.mark, {}
        view = memoryview(self.random)

        def write():
            descriptor = os.open(path, os.O_WRONLY | os.O_CREAT, 0o644)
            for offset in range(0, len(view), MIB):
                os.write(descriptor, view[offset : offset + MIB])
            os.fsync(descriptor)
            os.close(descriptor)

        return self.sequential_mib / self.timed(write)

    def check_sequential_write(self, subject):
        mark, written = self.marks[subject.name], self.written[subject.name]
        with open(self.files[subject.name], "rb") as file:
            for number in range(len(self.random) // BLOCK):
                expected = self.block(*written.get(number, (number, mark)))
                stage.expect(file.read(BLOCK) == expected, f"{subject.name}: other bytes at {number * BLOCK}")

    check_sequential_read_cold = check_random_read_cold = check_random_read_warm = check_random_write_buffered = check_sequential_write

    def write_through(self, subject):
        """So much that sealing has to keep up, until all is sealed; per second of the daemon's processor time."""
        before, path, summed = subject.processor_seconds(), subject.fresh() / "huge", measure.new_sum()

        def write():
            with open(path, "wb", buffering=0) as file:
                for _ in range(self.through_mib // 64):
                    block = memoryview(os.urandom(64 * MIB))
                    summed.update(block)
                    for offset in range(0, len(block), MIB):
                        file.write(block[offset : offset + MIB])
                os.fsync(file.fileno())
            subject.comb("snapshot", subject.mounted.volume, timeout=600)

        self.timed(write)
        self.sums[subject.name] = (path, summed.hexdigest())
        return self.through_mib / (subject.processor_seconds() - before)

    def check_sum(self, subject):
        """What is there when it is cold is what was there."""
        path, expected = self.sums[subject.name]
        stage.expect(measure.sum_of(path) == expected, f"{subject.name}: {path.name} has other bytes")

    check_write_through = check_random_write_synced = check_random_write_busy = check_sum

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
        return self.sequential_mib / self.timed(lambda: self.read(path))

    def fio(self, path, *words):
        words = [
            stage.tool("fio"), "--name=row", f"--filename={path}", f"--size={self.sequential_mib}m", "--bs=4k", "--ioengine=psync",
            "--thread", "--invalidate=0", "--norandommap", "--time_based", f"--runtime={self.fio_seconds}", "--output-format=json", *words,
        ]  # fmt: skip
        output = self.run(*words)
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
        path = self.big_file(subject)
        value = self.fio(path, "--rw=randwrite", "--fsync=1")["write"]["iops"]
        self.sums[subject.name] = (path, measure.sum_of(path))
        return value

    def written_before(self, subject):
        """A new large file, which leaves something to do."""
        self.sequential_write(subject)

    random_write_busy = random_write_synced

    def random_write_buffered(self, subject):
        path, view, blocks = self.big_file(subject), memoryview(self.random), len(self.random) // BLOCK
        chance = random.Random(self.mark)
        places = [chance.randrange(blocks) for _ in range(self.buffered_mib * MIB // BLOCK)]

        def write():
            descriptor = os.open(path, os.O_WRONLY)
            for number, place in enumerate(places):
                os.pwrite(descriptor, view[number * BLOCK : (number + 1) * BLOCK], place * BLOCK)
            os.fsync(descriptor)
            os.close(descriptor)

        value = self.buffered_mib / self.timed(write)
        self.written[subject.name] |= {place: (number, self.mark) for number, place in enumerate(places)}
        return value

    # Small files.

    def create(self, subject):
        folder = self.trees[subject.name] = subject.fresh() / "small"
        seed = self.seeds[folder] = random.SystemRandom().getrandbits(48)
        taken = []
        self.timed(lambda: taken.append(measure.small_files(folder, self.folder_count, self.file_count, 4096, seed)))
        return self.file_count / taken[0]

    def check_create(self, subject):
        folder = self.trees[subject.name]
        measure.check_small_files(folder, self.folder_count, self.file_count, 4096, self.seeds[folder])

    def remove(self, subject):
        self.create(subject)
        folder = self.trees.pop(subject.name)
        return self.file_count / self.timed(lambda: stage.run("rm", "-r", folder))

    def small_tree(self, subject):
        if subject.name not in self.trees:
            self.create(subject)
        return self.trees[subject.name]

    def find(self, folder):
        words = ["find", folder, "-type", "f", "-printf", "%s %T@\n"]
        return self.timed(lambda: subprocess.run(words, stdout=subprocess.DEVNULL, check=True))

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
        return self.timed(lambda: subprocess.run(["sh", "-c", command, "sh", folder], check=True))

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
        return self.timed(lambda: stage.run("tar", "-x", "--no-same-owner", "-f", tar, "-C", folder))

    def check_untar(self, subject):
        """Contents and times, as the archive has them."""
        stage.run("tar", "-d", "-f", self.tar, "-C", self.trees[f"{subject.name} git"].parent)

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
        return self.timed(status)

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

        taken = self.timed(commit)
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
        programs = measure.postgres()
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
            output = self.run(*client, "-c", 2, "-j", 2, "-T", self.pgbench_seconds, "postgres", user=user)
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
    ("write_through", "4 × the journal's size, sealed, per second of the daemon's processor time", "MiB/s", "comb", [(None, 286)]),
    ("sequential_read_cold", "sequential read, cold", "MiB/s", "ext4 comb", [("ext4", 0.8)]),
    ("random_read_cold", "4 KiB random read, cold", "IOPS", "ext4 comb", []),
    ("random_read_warm", "4 KiB random read, warm", "IOPS", "ext4 null comb", [("null", 0.9)]),
    ("random_write_synced", "4 KiB random write, fsync each", "IOPS", "ext4 null+sync comb", [("null+sync", 0.8), ("ext4", 0.5)]),
    ("random_write_busy", "the same right behind 1 GiB that was written", "IOPS", "ext4 null+sync comb", []),
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
# Whose data are the same each time: a fresh subject for each repetition, which has nothing that it could find again.
FRESH = {"untar", "pgbench"}
# What is made before the clock runs.
MADE_BEFORE = {
    "sequential_read_cold": "big_file",
    "random_read_cold": "big_file",
    "random_read_warm": "big_file",
    "random_write_synced": "big_file",
    "random_write_busy": "written_before",
    "random_write_buffered": "big_file",
    "find_cold": "small_tree",
    "find_warm": "small_tree",
    "read_all_cold": "small_tree",
}
# These begin while the disk still has something to do.
UNSETTLED = {"random_write_busy"}
# What somebody may fail with, without harm to the others.
FAILURES = (stage.Skipped, stage.Failed, OSError, sqlite3.Error, subprocess.SubprocessError)
# What these do again and again grows their state; each measurement has a subject of its own.
NO_PEERS = {"write_through"}


def row(context, table, rows, method, name, unit, goals, who):
    """Measures one row; returns it."""
    line, subjects = table.row(name, unit, goals), []

    def failed(one, why):
        line.failures[one] = str(getattr(why, "stdout", None) or why)
        print(f"{method}, {one}: {line.failures[one]}", file=sys.stderr)

    for one in who:
        try:
            subjects.append(filesystems.ALL[one](context.work))
        except FAILURES as why:
            failed(one, why)
    rows.forget()
    if method in ("untar", "git_status"):
        rows.source_tree()
    for number in range(context.repetitions):
        rows.repeat(number)
        # In turn, so that a slow minute of the machine falls on all of them.
        for at, subject in enumerate(subjects):
            if number and subject.name in PEERS.split():
                continue
            try:
                if number and method in FRESH:
                    subject.end()
                    subject = subjects[at] = filesystems.ALL[subject.name](context.work)
                if method in MADE_BEFORE:
                    getattr(rows, MADE_BEFORE[method])(subject)
                if method not in UNSETTLED and not measure.settle(context.work, context.patience):
                    line.unsettled.add(subject.name)
                with measure.still():
                    value = getattr(rows, method)(subject)
                line.add(subject.name, value, rows.busy, subject.memory_mib()[1])
            except FAILURES as why:
                failed(subject.name, why)
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
        except FAILURES as why:
            failed(subject.name, why)
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
