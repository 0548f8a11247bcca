"""What must leave the machine for a change, and what comes back: Comb beside btrfs send, restic, rustic, borg and S3QL.

Everybody keeps a database file of 8 KiB pages (zstd makes them 0.67 of their size) and then a tree of small files, each where it
lies by his nature: Comb, btrfs and S3QL in themselves, the others on ext4, in memory. A step changes something, untimed and synced; then the time
is taken until the change is in the second place, and the bytes by which that grew. The first copy and the way back on a bare machine are
measured in turn, each time in a fresh place, for those on whom most goals hang; everything else of one after the other. At the end all moments but the
newest are dropped, and everything is restored once more. What was restored is compared with what is there.

The second places: `comb` a folder (synced); `comb, S3` and `comb, S3 20 ms` versitygw on loopback and the same with 20 ms a request; restic
and rustic versitygw; borg and S3QL a folder; btrfs a file of `btrfs send | zstd -3 | age`, synced, for each step. versitygw syncs
nothing, so the folder is the one to compare with those who sync.
"""

import itertools
import json
import os
import pathlib
import random
import shutil
import subprocess
import sys

from . import filesystems, measure, report, sizes
from .measure import MIB, PAGE_BYTES, stage
from .s3 import FAR_MS, S3, Elsewhere

KIND = "compressible"
VOLUME = stage.Comb.volume


class Replica:
    """One who keeps a folder (`root`) in a second place.

    `send` brings there what is in `root`, `stored` tells the bytes that are there, and `sent` those that came there so far. `restore` and `first_file` make ready for coming back on a
    bare machine, and return what does it; `restored` is what came.
    """

    # Why it is spared twenty rounds and many files, if it is.
    spared = None

    def __init__(self, context, store):
        self.work, self.store = context.work, store

    def sent(self):
        """The bytes that came to the second place so far; what nobody replaces is what is there."""
        return self.stored()

    def memory_mib(self):
        """The most memory that its processes took; None where none is its own."""
        return None

    def drop_all_but_last(self):
        """What forgets all moments but the newest, and gives back at once what only they held; None where that cannot be."""

    def compare(self):
        """Fails unless what came back is what is there: names and contents."""
        stage.run("diff", "--recursive", "--brief", "--no-dereference", self.root, self.restored, timeout=3600)

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
        machine, self.restored = self.bare(), to
        return lambda: (machine.open("--read-only"), machine.comb("restore", f"{VOLUME}@head:/", "--to", to))

    def first_file(self, path, to):
        machine = self.bare()

        def fetch():
            machine.open("--read-only")
            with open(to, "wb") as file:
                words = [stage.Comb.binary(), "--state", machine.place / "state", "cat", f"{VOLUME}:{path.relative_to(self.root)}"]
                subprocess.run(list(map(str, words)), stdout=file, check=True)

        return fetch

    def drop_for_later(self):
        """What forgets all moments but the newest; it returns how many bytes a pruning will give back a day later."""
        self.comb("retain", VOLUME, "keep last 1")
        return lambda: json.loads(self.comb("prune", VOLUME, "--json", timeout=7200))["condemned"]["bytes"]

    def drop_all_but_last(self):
        return lambda: self.comb("prune", VOLUME, "--grace", "0", timeout=7200)

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
        self.root, self.target = self.subject.root / "live", None
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

    def streams(self):
        return sorted(self.place.glob("*.age"))

    def stored(self):
        return sum(path.stat().st_size for path in self.streams())

    def restore(self, to):
        """All streams again, one after the other, since each builds on the one before."""
        self.end_target()
        self.target = filesystems.Btrfs(self.work)
        self.restored = self.target.root / self.last.name

        def replay():
            for stream in self.streams():
                stage.run("bash", "-o", "pipefail", "-ec", f"{self.age} -d -i {self.key} {stream} | {self.zstd} -q -d | {self.btrfs} -q receive {self.target.root}")

        return replay

    def end_target(self):
        if self.target:
            self.target.end()
            measure.remove_large(self.target.place)
            self.target = None

    def end(self):
        self.end_target()
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
        """What programs know on a machine that never saw the repository."""
        return os.environ | {"BORG_BASE_DIR": str(self.work.fresh("borg-home")), "BORG_UNKNOWN_UNENCRYPTED_REPO_ACCESS_IS_OK": "yes"}

    def restore(self, to):
        machine, self.restored = self.bare(), pathlib.Path(to) / self.root.relative_to("/")
        return lambda: self.call("extract", self.last, cwd=to, env=machine)

    def first_file(self, path, to):
        machine = self.bare()

        def fetch():
            with open(to, "wb") as file:
                self.call("extract", "--stdout", self.last, path.relative_to("/"), stdout=file, env=machine)

        return fetch

    def drop_all_but_last(self):
        return lambda: (self.call("prune", "--keep-last", "1", self.repository), self.call("compact", self.repository))


class OnS3ql(Replica):
    name = "s3ql"
    spared = "twenty rounds of pages at 20 s each and 200,000 files at less than 1,000 a second would take it half an hour"

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
        self.restored = to
        return lambda: (self.subject.mount(), stage.run("cp", "-r", f"{self.root}/.", to, timeout=7200))

    def first_file(self, path, to):
        self.bare()
        return lambda: (self.subject.mount(), shutil.copyfile(path, to))

    def end(self):
        self.subject.end()


# The seconds that were set as goals, and beside them ratios to peers of the same run, since disks and days differ: a factor is the goal by what that peer
# took where it was set, and 1 asks to be no slower. In a folder Comb is beside btrfs and borg, in S3 beside restic and rustic.
NEAR, FAR = OnCombS3.name, OnCombFar.name
GOALS = {
    "first copy": [(None, 4.5), ("btrfs", 1), ("borg", 1), ("restic", 1, NEAR), ("rustic", 1, NEAR)],
    "many pages": [(None, 0.3), ("btrfs", 1)],
    "few pages": [(None, 0.1), ("btrfs", 1.1)],
    "nothing": [(None, 0.01), ("btrfs", 1)],
    "few files": [(None, 0.1), ("btrfs", 2)],
    "one file": [(None, 0.1), (None, 0.1, NEAR), (None, 0.1, FAR), ("borg", 0.34), ("restic", 0.13, NEAR)],
    "restore": [(None, 2.4), ("btrfs", 1), ("borg", 1), ("restic", 1, NEAR), ("rustic", 1, NEAR)],
    "restore all": [("borg", 1), ("restic", 1, NEAR), ("rustic", 1, NEAR)],
    "drop for later": [(None, 1), (None, 1, NEAR)],
    "drop": [("borg", 0.06), ("restic", 0.14, NEAR), ("rustic", 1, NEAR)],
}

ALL = {one.name: one for one in (OnComb, OnCombS3, OnCombFar, OnBtrfs, OnRestic, OnRustic, OnBorg, OnS3ql)}
# Who takes turns in what most goals hang on; of the others one measurement has to do, they take minutes.
IN_TURN = [OnComb.name, NEAR, OnBtrfs.name]


class Steps:
    """What is done to each, and told."""

    def __init__(self, context, table, replica):
        self.context, self.table, self.replica = context, table, replica
        self.name, self.path = replica.name, replica.root / "base"
        self.pages, self.many, self.few = context.of((131_072, 2_000, 200), (16_384, 250, 25))

    def note(self, name, unit, value, goals=(), busy=None, more=False):
        self.table.row(name, unit, goals, more).add(self.name, value, busy, self.replica.memory_mib())
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

    def step(self, name, dirtied=None, goals=(), stored_most=None):
        """Sends what was changed; `stored_most` bounds what is stored, by what was dirtied or in MiB."""
        before = self.replica.sent()
        taken, busy = self.timed(self.replica.send)
        stored, bound = self.replica.sent() - before, [(None, stored_most)] if stored_most else ()
        self.note(name, "s", taken, goals, busy)
        if dirtied:
            self.note(f"{name}: stored / dirtied", "×", stored / dirtied, bound)
        else:
            self.note(f"{name}: stored", "MiB", stored / MIB, bound)

    def come_back(self, name, goals):
        """Restores on a bare machine, and compares."""
        replica, to = self.replica, self.context.work.fresh("restored")
        restore = replica.restore(to)
        measure.drop_caches()
        # Not all of them sync what they write.
        taken, busy = self.timed(lambda: (restore(), stage.run("sync", "-f", replica.restored)))
        self.note(name, "s", taken, goals, busy)
        if hasattr(replica, "streams"):
            self.note(f"{name}: streams that are replayed for it", "", len(replica.streams()))
        replica.compare()
        measure.remove_large(to)

    def overwrite(self, seed, count):
        return measure.overwrite(self.path, seed, self.pages, count, KIND)

    def database(self):
        """A database file and a little more in seven moments, as many as there were where the goals were set, and the way back."""
        of, chance = self.context.of, random.Random("base")
        with open(self.path, "wb") as file:
            for _ in range(self.pages):
                file.write(measure.page(chance, KIND))
            file.flush()
            os.fsync(file.fileno())
        size = f"{self.pages * PAGE_BYTES >> 20} MiB"
        self.step(f"first copy of a database file of {size}", goals=self.goals("first copy"))
        for number in range(self.context.repetitions):
            dirtied = self.overwrite(f"many {number}", self.many)
            self.step(f"{self.many:,} pages overwritten", dirtied, self.goals("many pages"), 0.8)
        appended = of(2_048, 256)
        with open(self.path, "ab") as file:
            file.write(b"".join(measure.page(chance, KIND) for _ in range(appended)))
            file.flush()
            os.fsync(file.fileno())
        self.step(f"{appended * PAGE_BYTES >> 20} MiB appended", appended * PAGE_BYTES)
        files = of(1_000, 200)
        measure.small_files(self.replica.root / "few", 10, files, 4096, 7)
        os.sync()
        self.step(f"{files:,} files of 4 KiB made", files * 4096)
        self.step("nothing changed", goals=self.goals("nothing"))
        self.come_back("database file and small files restored, and synced", self.goals("restore"))

    def changes(self):
        """Few changes, and none."""
        for number in range(self.context.repetitions):
            dirtied = self.overwrite(f"few {number}", self.few)
            self.step(f"{self.few} pages overwritten", dirtied, self.goals("few pages"), 1.0)
        for _ in range(self.context.repetitions):
            self.step("nothing changed", goals=self.goals("nothing"))

    def rounds(self):
        """The same file again and again: what is scattered adds up, or is put in order."""
        for number in range(self.context.repetitions, 20):
            dirtied = self.overwrite(f"many {number}", self.many)
            before = self.replica.sent()
            taken, busy = self.timed(self.replica.send)
        self.note(f"{self.many:,} pages overwritten, 20th round", "s", taken, busy=busy)
        self.note(f"{self.many:,} pages overwritten, 20th round: stored / dirtied", "×", (self.replica.sent() - before) / dirtied, [(None, 0.95)])

    def dump(self):
        """A dump, which comes again with a megabyte more near its start, as a new file that takes the old one's name."""
        root, size = self.replica.root, self.context.of(256, 16) * MIB
        sizes.write(root / "dump", sizes.dump(KIND, size))
        self.step(f"first copy of a dump of {size // MIB} MiB")
        sizes.write(root / "new", sizes.edited(KIND, size))
        os.rename(root / "new", root / "dump")
        os.sync()
        self.step("1 MiB inserted into it, a new file that is renamed", stored_most=sizes.EDIT_GOAL / MIB)

    def tree(self):
        """Many files, of which few change."""
        files = self.context.of(200_000, 5_000)
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

    def forget(self):
        """All moments but the newest."""
        replica, name = self.replica, "all moments dropped but the newest"
        drop = replica.drop_all_but_last()
        if not drop:
            return
        before, earlier, busy_earlier = replica.stored(), 0, 0
        if hasattr(replica, "drop_for_later"):
            later, told = replica.drop_for_later(), []
            earlier, busy_earlier = self.timed(lambda: told.append(later()))
            self.note(f"{name}, their room promised for a day later", "s", earlier, self.goals("drop for later"), busy_earlier)
            self.note(f"{name}: promised", "MiB", told[0] / MIB, more=True)
        # Both together are what others do at once.
        taken, busy = self.timed(drop)
        self.note(f"{name}, their room given back", "s", earlier + taken, self.goals("drop"), busy_earlier + busy)
        self.note(f"{name}: freed", "MiB", (before - replica.stored()) / MIB, more=True)
        self.note(f"{name}: left", "MiB", replica.stored() / MIB)

    def back(self):
        """One file and all, after dropping: where moments cannot be dropped, they have to be gone through."""
        replica = self.replica
        if hasattr(replica, "first_file"):
            path, to = next((replica.root / "few").rglob("f*")), self.context.work.fresh("one") / "file"
            for _ in range(self.context.repetitions):
                fetch = replica.first_file(path, to)
                measure.drop_caches()
                taken, busy = self.timed(fetch)
                self.note("one file of 4 KiB on a bare machine", "s", taken, self.goals("one file"), busy)
                stage.expect(to.read_bytes() == path.read_bytes(), f"{self.name}: the file came back with other bytes")
        self.come_back("everything restored after dropping, and synced", self.goals("restore all"))

    def everything(self):
        """All steps; few of those that somebody is spared."""
        long, tree = self.context.size == "long", self.context.wants("tree")
        self.database()
        self.changes()
        if long and self.replica.spared:
            self.table.failures[self.name] = self.replica.spared
        else:
            if long:
                self.rounds()
            if tree:
                self.tree()
        self.dump()
        self.forget()
        self.back()


def visit(context, table, store, name, steps):
    """Lets one of them go through steps, in a place of his own."""
    replica = None
    try:
        replica = ALL[name](context, store)
        steps(Steps(context, table, replica))
    except (stage.Skipped, stage.Failed, OSError, subprocess.SubprocessError) as why:
        table.failures[name] = str(getattr(why, "stdout", None) or why)
        print(f"{name} is broken off: {table.failures[name]}", file=sys.stderr)
    finally:
        if replica:
            replica.end()
        # The disk shall have room for the next.
        measure.remove_large(context.work.path)


def run(context):
    """The turns, then everybody, one after the other; the last turn of each is at the head of all his steps."""
    table = context.table("Kept in a second place", ALL)
    store = S3(context.work)
    try:
        for _ in range(context.repetitions - 1):
            for name in context.chosen(IN_TURN):
                visit(context, table, store, name, Steps.database)
        for name in context.chosen(ALL):
            visit(context, table, store, name, Steps.everything)
    finally:
        store.end()
