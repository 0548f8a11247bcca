"""What must leave the machine for a change, and what comes back: Comb beside btrfs send, restic, rustic, borg and S3QL.

Everybody keeps a database file of 8 KiB pages (zstd makes them 0.67 of their size) and then a tree of small files, each where it
lies by his nature: Comb, btrfs and S3QL in themselves, the others on ext4, in memory. A step changes something, untimed and synced; then the time
is taken until the change is in the second place, and the bytes by which that grew. At the end everything is restored on a bare
machine and compared with what is there.

The second places: `comb` a folder (synced); `comb, S3` and `comb, S3 20 ms` versitygw on loopback and the same with 20 ms a request; restic
and rustic versitygw; borg and S3QL a folder; btrfs a file of `btrfs send | zstd -3 | age`, synced, for each step. versitygw syncs
nothing, so the folder is the one to compare with those who sync.
"""

import itertools
import os
import pathlib
import random
import shutil
import subprocess
import sys

from . import filesystems, measure, report
from .measure import MIB, PAGE_BYTES, stage
from .s3 import FAR_MS, S3, Elsewhere

KIND = "compressible"
VOLUME = stage.Comb.volume


class Replica:
    """One who keeps a folder (`root`) in a second place.

    `send` brings there what is in `root`, `stored` tells the bytes that are there, and `sent` those that came there so far. `restore` and `first_file` make ready for coming back on a
    bare machine, and return what does it.
    """

    def __init__(self, context, store):
        self.work, self.store = context.work, store

    def sent(self):
        """The bytes that came to the second place so far; what nobody replaces is what is there."""
        return self.stored()

    def memory_mib(self):
        """The most memory that its processes took; None where none is its own."""
        return None

    def drop_all_but_last(self):
        """What forgets all moments but the newest, and frees what only they held; None where that cannot be."""

    def end(self):
        """Gives everything back."""


def folder_bytes(folder):
    return sum(path.stat().st_size for path in pathlib.Path(folder).rglob("*") if path.is_file())


class OnComb(Replica):
    """Comb with a store; `url` is where others find it, which may be farther away."""

    name = "comb"

    def __init__(self, context, store):
        super().__init__(context, store)
        self.subject = filesystems.Comb(context.work)
        self.comb, self.root = self.subject.comb, self.subject.root
        self.place = context.work.fresh("replica")
        self.attach()

    def attach(self):
        self.url = f"file://{self.place}"
        self.comb("store", "add", VOLUME, self.url)

    def send(self):
        self.comb("sync", VOLUME, "--wait", timeout=7200)

    def stored(self):
        return folder_bytes(self.place)

    def memory_mib(self):
        return self.subject.memory_mib()[1]

    def bare(self):
        """A machine with nothing but the key."""
        key = self.work.fresh("key") / "key"
        self.comb("volume", "key", VOLUME, "--out", key)
        return Elsewhere(self.work, key, self.url)

    def restore(self, to):
        machine = self.bare()
        return lambda: (machine.open("--read-only"), machine.comb("restore", f"{VOLUME}@head:/", "--to", to))

    def first_file(self, path, to):
        machine = self.bare()

        def fetch():
            machine.open("--read-only")
            with open(to, "wb") as file:
                words = [stage.Comb.binary(), "--state", machine.place / "state", "cat", f"{VOLUME}:{path.relative_to(self.root)}"]
                subprocess.run(list(map(str, words)), stdout=file, check=True)

        return fetch

    def drop_all_but_last(self):
        self.comb("retain", VOLUME, "keep last 1")
        return lambda: self.comb("prune", VOLUME, timeout=7200)

    def end(self):
        self.subject.end()


class OnCombS3(OnComb):
    name = "comb, S3"
    far = False

    def attach(self):
        self.prefix = self.store.prefix("comb")
        if self.far:
            self.store.far(FAR_MS)
        self.url = self.store.url(self.prefix, far=self.far)
        self.comb("store", "add", VOLUME, self.url)

    def stored(self):
        return self.store.stored(self.prefix)

    def end(self):
        super().end()
        if self.far:
            self.store.near()


class OnCombFar(OnCombS3):
    name, far = f"comb, S3 {FAR_MS} ms", True


class OnBtrfs(Replica):
    name = "btrfs"

    def __init__(self, context, store):
        super().__init__(context, store)
        self.subject = filesystems.Btrfs(context.work)
        self.age, self.zstd, self.btrfs = stage.tool("age"), stage.tool("zstd"), stage.tool("btrfs", "/sbin")
        self.place, self.numbers, self.last = context.work.fresh("replica"), itertools.count(), None
        self.key = self.place / "key"
        recipient = stage.run(stage.tool("age-keygen"), "-o", self.key)
        self.recipient = recipient.split()[-1]
        self.root = self.subject.root / "live"
        stage.run(self.btrfs, "subvolume", "create", self.root)

    def send(self):
        number = next(self.numbers)
        new = self.subject.root / f"s{number}"
        parent = f"-p {self.last}" if self.last else ""
        to = self.place / f"{number:04}.age"
        stage.run(
            "bash", "-o", "pipefail", "-ec",
            f"sync -f {self.root}; {self.btrfs} -q subvolume snapshot -r {self.root} {new}; "
            f"{self.btrfs} -q send {parent} {new} | {self.zstd} -q -3 -T2 | {self.age} -r {self.recipient} > {to}; sync {to}",
            timeout=7200,
        )  # fmt: skip
        self.last = new

    def stored(self):
        return sum(path.stat().st_size for path in self.place.glob("*.age"))

    def restore(self, to):
        target = filesystems.Btrfs.__new__(filesystems.Btrfs)
        filesystems.Subject.__init__(target, self.work)
        self.target = target

        def replay():
            for stream in sorted(self.place.glob("*.age")):
                stage.run("bash", "-o", "pipefail", "-ec", f"{self.age} -d -i {self.key} {stream} | {self.zstd} -q -d | {self.btrfs} -q receive {target.root}")

        self.restored = target.root / self.last.name
        return replay

    def end(self):
        if hasattr(self, "target"):
            self.target.end()
        self.subject.end()


class Backup(Replica):
    """A program that reads a folder of ext4."""

    def __init__(self, context, store):
        super().__init__(context, store)
        self.tool = stage.tool(self.name)
        self.root = context.work.fresh("source") / "live"
        self.root.mkdir()
        self.most = None
        self.prepare()

    def call(self, *words, **more):
        """Runs it, and notes how much memory it took."""
        words = [str(word) for word in (*self.words, *words)]
        with open(self.log, "ab") as log:
            process = subprocess.Popen(words, stdin=subprocess.DEVNULL, stdout=more.pop("stdout", log), stderr=log, **more)
            _, status, usage = os.wait4(process.pid, 0)
            process.returncode = os.waitstatus_to_exitcode(status)
        stage.expect(process.returncode == 0, f"{' '.join(words)}: {self.log.read_text(errors='replace')[-500:]}")
        self.most = max(self.most or 0, usage.ru_maxrss / 1024)

    def memory_mib(self):
        return self.most


class OnRestic(Backup):
    name = "restic"

    def prepare(self):
        os.environ["RESTIC_PASSWORD"] = filesystems.PASSWORD
        self.prefix, self.log = self.store.prefix("restic"), self.work.fresh("log") / "log"
        self.words = [self.tool, "--quiet", "--repo", f"s3:http://{self.store.endpoint}/comb-test/{self.prefix}"]
        self.cache = ["--cache-dir", self.work.fresh("cache")]
        self.call(*self.cache, "init", "--repository-version", "2")

    def send(self):
        self.call(*self.cache, "backup", self.root)

    def stored(self):
        return self.store.stored(self.prefix)

    def restore(self, to):
        self.restored = pathlib.Path(to) / self.root.relative_to("/")
        return lambda: self.call("--no-cache", "restore", "latest", "--target", to)

    def first_file(self, path, to):
        def fetch():
            with open(to, "wb") as file:
                self.call("--no-cache", "dump", "latest", path, stdout=file)

        return fetch

    def drop_all_but_last(self):
        return lambda: self.call(*self.cache, "forget", "--keep-last", "1", "--prune")


class OnRustic(OnRestic):
    name = "rustic"

    def prepare(self):
        self.prefix, folder = self.store.prefix("rustic"), self.work.fresh("rustic")
        self.log = folder / "log"
        profile = folder / "rustic.toml"
        options = {
            "bucket": "comb-test", "root": f"/{self.prefix}", "endpoint": f"http://{self.store.endpoint}", "region": "us-east-1",
            "access_key_id": self.store.key, "secret_access_key": self.store.secret,
        }  # fmt: skip
        profile.write_text(
            '[global]\nno-progress = true\nlog-level = "error"\n'
            f'[repository]\nrepository = "opendal:s3"\npassword = "{filesystems.PASSWORD}"\n'
            "[repository.options]\n" + "".join(f'{name} = "{value}"\n' for name, value in options.items()),
            encoding="utf-8",
        )
        self.words, self.cache = [self.tool, "--use-profile", folder / "rustic"], ["--cache-dir", self.work.fresh("cache")]
        self.call(*self.cache, "init")

    def restore(self, to):
        self.restored = pathlib.Path(to) / self.root.relative_to("/")
        return lambda: self.call("--no-cache", "restore", "latest", to)

    def first_file(self, path, to):
        def fetch():
            with open(to, "wb") as file:
                self.call("--no-cache", "dump", f"latest:{path}", stdout=file)

        return fetch

    def drop_all_but_last(self):
        return lambda: self.call(*self.cache, "forget", "--keep-last", "1", "--prune", "--instant-delete")


class OnBorg(Backup):
    name = "borg"

    def prepare(self):
        self.home, self.numbers = self.work.fresh("borg-home"), itertools.count()
        self.log, self.repository = self.home / "log", self.work.fresh("borg") / "repository"
        os.environ.update(BORG_PASSPHRASE=filesystems.PASSWORD, BORG_BASE_DIR=str(self.home), BORG_RELOCATED_REPO_ACCESS_IS_OK="yes")
        self.words = [self.tool]
        self.call("init", "--encryption=repokey-blake2", self.repository)

    def send(self):
        self.last = f"{self.repository}::s{next(self.numbers)}"
        self.call("create", self.last, self.root)

    def stored(self):
        return folder_bytes(self.repository)

    def bare(self):
        os.environ["BORG_BASE_DIR"] = str(self.work.fresh("borg-home"))
        os.environ["BORG_UNKNOWN_UNENCRYPTED_REPO_ACCESS_IS_OK"] = "yes"

    def restore(self, to):
        self.bare()
        self.restored = pathlib.Path(to) / self.root.relative_to("/")
        return lambda: self.call("extract", self.last, cwd=to)

    def first_file(self, path, to):
        self.bare()

        def fetch():
            with open(to, "wb") as file:
                self.call("extract", "--stdout", self.last, path.relative_to("/"), stdout=file)

        return fetch

    def drop_all_but_last(self):
        return lambda: (self.call("prune", "--keep-last", "1", self.repository), self.call("compact", self.repository))


class OnS3ql(Replica):
    name = "s3ql"

    def __init__(self, context, store):
        super().__init__(context, store)
        self.subject = filesystems.S3ql(context.work)
        self.root = self.subject.root / "live"
        self.root.mkdir()
        self.seen, self.total = set(), 0

    def send(self):
        for step in ("flushcache", "backup-metadata"):
            self.subject.in_sid("s3qlctrl", step, self.subject.inside / "mount")

    def stored(self):
        return sum(stat.st_size for stat in self.subject.objects())

    def sent(self):
        # It replaces blocks; each that is new was sent.
        for stat in self.subject.objects():
            if (stat.st_ino, stat.st_mtime_ns) not in self.seen:
                self.seen.add((stat.st_ino, stat.st_mtime_ns))
                self.total += stat.st_size
        return self.total

    def memory_mib(self):
        return self.subject.memory_mib()[1]

    def bare(self):
        """Nothing is left but the store."""
        self.subject.unmount()
        cache = self.subject.outside("cache")
        shutil.rmtree(cache)
        cache.mkdir()

    def restore(self, to):
        self.bare()
        return lambda: (self.subject.mount(), stage.run("cp", "-r", f"{self.root}/.", to, timeout=7200))

    def first_file(self, path, to):
        self.bare()
        return lambda: (self.subject.mount(), shutil.copyfile(path, to))

    def end(self):
        self.subject.end()


# Seconds are told beside those of the same run: what is reached in absolute numbers depends on the machine's disk and day. Each factor
# is the goal in seconds by what that peer took where the goal was set.
GOALS = {
    "first copy": [("btrfs", 1.0)],
    "many pages": [("btrfs", 1.0)],
    "few pages": [("btrfs", 1.1)],
    "nothing": [("btrfs", 1.0)],
    "few files": [("btrfs", 2.0)],
    "one file": [("borg", 0.34)],
    "restore": [("btrfs", 1.0), ("restic", 1.0)],
    "forget": [("restic", 0.14)],
}

ALL = {one.name: one for one in (OnComb, OnCombS3, OnCombFar, OnBtrfs, OnRestic, OnRustic, OnBorg, OnS3ql)}


class Steps:
    """What is done to each, and told."""

    def __init__(self, context, table, replica):
        self.context, self.table, self.replica = context, table, replica
        self.name = replica.name

    def note(self, name, unit, value, goals=(), busy=None):
        self.table.row(name, unit, goals).add(self.name, value, busy, self.replica.memory_mib())
        print(f"{self.name}: {name}: {report.number(value)} {unit}", file=sys.stderr, flush=True)

    def timed(self, call):
        """How long it took, and how busy the machine was."""
        with measure.still():
            busy = measure.busy_seconds()
            taken = measure.seconds(call)
            return taken, measure.busy_seconds() - busy

    def goals(self, name):
        """Those of the long form: small amounts compare nothing but starting."""
        return GOALS[name] if self.context.size == "long" else ()

    def step(self, name, dirtied=None, goals=(), goal_bytes=None):
        """Sends what was changed."""
        before = self.replica.sent()
        taken, busy = self.timed(self.replica.send)
        stored = self.replica.sent() - before
        self.note(name, "s", taken, goals, busy)
        if dirtied:
            self.note(f"{name}: stored / dirtied", "×", stored / dirtied, [(None, goal_bytes)] if goal_bytes else ())
        else:
            self.note(f"{name}: stored", "MiB", stored / MIB)

    def base(self):
        """The database file and what happens to it."""
        root, of, repeat = self.replica.root, self.context.of, range(self.context.repetitions)
        path, pages = root / "base", of(131_072, 16_384, 8_192)
        many, few = of((2_000, 200), (250, 25), (125, 12))
        chance = random.Random("base")
        with open(path, "wb") as file:
            for _ in range(pages):
                file.write(measure.page(chance, KIND))
            file.flush()
            os.fsync(file.fileno())
        size = f"{pages * PAGE_BYTES >> 20} MiB"
        self.step(f"first copy of a database file of {size}", goals=self.goals("first copy"))
        for number in repeat:
            dirtied = measure.overwrite(path, f"many {number}", pages, many, KIND)
            self.step(f"{many:,} pages overwritten", dirtied, self.goals("many pages"), 0.8)
        for number in repeat:
            dirtied = measure.overwrite(path, f"few {number}", pages, few, KIND)
            self.step(f"{few} pages overwritten", dirtied, self.goals("few pages"), 1.0)
        appended = of(2_048, 256)
        with open(path, "ab") as file:
            file.write(b"".join(measure.page(chance, KIND) for _ in range(appended)))
            file.flush()
            os.fsync(file.fileno())
        self.step(f"{appended * PAGE_BYTES >> 20} MiB appended", appended * PAGE_BYTES)
        measure.small_files(root / "few", 10, of(1_000, 200), 4096, 7)
        os.sync()
        self.step(f"{of(1_000, 200):,} files of 4 KiB made", of(1_000, 200) * 4096)
        for _ in repeat:
            self.step("nothing changed", goals=self.goals("nothing"))
        if self.context.size == "long":
            # The same file again and again: what is scattered adds up, or is put in order.
            for number in range(self.context.repetitions, 20):
                measure.overwrite(path, f"many {number}", pages, many, KIND)
                before = self.replica.sent()
                taken, busy = self.timed(self.replica.send)
            self.note(f"{many:,} pages overwritten, 20th round", "s", taken, busy=busy)
            dirtied = many * PAGE_BYTES
            self.note(f"{many:,} pages overwritten, 20th round: stored / dirtied", "×", (self.replica.sent() - before) / dirtied, [(None, 0.95)])

    def tree(self):
        """Many files, of which few change."""
        files = self.context.of(200_000, 5_000, 2_000)
        tree = self.replica.root / "tree"
        measure.small_files(tree, files // 100, files, 1024, 7)
        os.sync()
        self.step(f"{files:,} files of 1 KiB made")
        paths, chance = sorted(path for path in tree.rglob("f*")), random.Random(7)
        for _ in range(self.context.repetitions):
            for path in chance.sample(paths, 100):
                path.write_bytes(chance.randbytes(1024))
            os.sync()
            self.step(f"100 of {files:,} files changed", goals=self.goals("few files"))

    def back(self):
        """Restoring, one file and all, and forgetting the past. What came back is compared."""
        replica = self.replica
        if hasattr(replica, "first_file"):
            path, to = next((replica.root / "few").rglob("f*")), self.context.work.fresh("one") / "file"
            for _ in range(self.context.repetitions):
                fetch = replica.first_file(path, to)
                measure.drop_caches()
                taken, busy = self.timed(fetch)
                self.note("one file of 4 KiB on a bare machine", "s", taken, self.goals("one file"), busy)
                stage.expect(to.read_bytes() == path.read_bytes(), f"{self.name}: the file came back with other bytes")
        if hasattr(replica, "restore"):
            to = self.context.work.fresh("restored")
            replica.restored = to
            restore = replica.restore(to)
            measure.drop_caches()
            # Not all of them sync what they write.
            taken, busy = self.timed(lambda: (restore(), stage.run("sync", "-f", replica.restored)))
            self.note("everything restored, and synced", "s", taken, self.goals("restore"), busy)
            for path in [path for path in sorted(replica.root.rglob("*")) if path.is_file()]:
                came = replica.restored / path.relative_to(replica.root)
                stage.expect(measure.sum_of(came) == measure.sum_of(path), f"{self.name}: {path.name} came back with other bytes")
            shutil.rmtree(to)

    def forget(self):
        """All moments but the newest."""
        drop = self.replica.drop_all_but_last()
        if drop:
            before = self.replica.stored()
            taken, busy = self.timed(drop)
            self.note("all moments dropped but the newest", "s", taken, self.goals("forget"), busy)
            self.note("all moments dropped but the newest: freed", "MiB", (before - self.replica.stored()) / MIB)


def run(context):
    """Everybody, one after the other."""
    table = context.table("Kept in a second place", ALL)
    store = S3(context.work)
    try:
        for name in context.chosen(ALL):
            replica = None
            try:
                replica = ALL[name](context, store)
                steps = Steps(context, table, replica)
                steps.base()
                steps.back()
                if context.wants("tree"):
                    steps.tree()
                steps.forget()
            except (stage.Skipped, stage.Failed, OSError, subprocess.SubprocessError) as why:
                said = str(getattr(why, "stdout", None) or why)
                table.failures[name] = said
                print(f"{name} is broken off: {said}", file=sys.stderr)
            finally:
                if replica:
                    replica.end()
    finally:
        store.end()
