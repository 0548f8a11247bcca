"""What a store takes: increments, the first upload, opening elsewhere, reading lazily, dropping a snapshot.

increment   100 changed files among 2,000 and among 200,000, until they are in an S3 store on loopback
first       a tree of real files for the first time, beside restic, rustic (the same store) and borg (a folder)
opening     a volume of 1,000,000 files from a store where each request takes 20 ms, also after 2,000 snapshots
postgres    PostgreSQL on a volume of 1 GiB, taken over from such a store, until it answers
reading     a whole tree from a store, beside fetching the same objects with curl
dropping    1 of 1,000 snapshots: its time, and which packs are read for it

The store is versitygw (`tests/servers/s3`) with its data on the disk that is measured; the 20 ms are added by `farstore`, which also
writes down each request.
"""

import json
import os
import pathlib
import random
import re
import shutil
import subprocess
import sys
import time

from . import filesystems, measure, replica
from .measure import MIB, stage
from .s3 import FAR_MS, S3, VOLUME, Elsewhere

PARTS = ["increment", "first", "opening", "postgres", "reading", "dropping"]
# Requests that Comb's readers have under way at most; curl gets as many.
REQUESTS = 8
# Byte of a pack that says what is in it (`fs/docs/format.md`, section 5), and what it says of chunks.
PACK_KIND_AT, PACK_KIND_CHUNKS = 11, 1


class Size:
    """How much there is."""

    def __init__(self, context):
        self.repetitions = context.repetitions
        self.increments = context.of((2_000, 200_000), (500, 5_000))
        self.tree = context.of(1024, 32) * MIB
        self.many = context.of(1_000_000, 20_000)
        self.history = context.of(2_000, 50)
        self.pgbench_scale = context.of(66, 3)
        self.snapshots = context.of(1_000, 50)


class Bench:
    """The parts, each of which can be run alone."""

    def __init__(self, context, store):
        self.context, self.size, self.work, self.store = context, Size(context), context.work, store
        self.report = context.table("Stores")
        self.trees, self.copied = {}, []

    def volume(self, name, attach=True):
        """A mounted volume and its prefix in the store."""
        subject, prefix = filesystems.Comb(self.work), self.store.prefix(name)
        if attach:
            subject.comb("store", "add", VOLUME, self.store.url(prefix))
        return subject, prefix

    def sync(self, subject):
        return measure.seconds(lambda: subject.comb("sync", VOLUME, "--wait", timeout=3600))

    def key(self, subject):
        path = self.work.fresh("key") / "key"
        subject.comb("volume", "key", VOLUME, "--out", path)
        return path

    # 1. An increment.

    def increment(self):
        for files in self.size.increments:
            subject, prefix = self.volume("increment")
            tree = subject.fresh() / "tree"
            measure.small_files(tree, files // 100, files, 1024, 7)
            self.sync(subject)
            chance, paths = random.Random(files), sorted(tree.rglob("f*"))
            stage.expect(len(paths) >= files, f"{len(paths)} files in {tree}")
            paths, taken, sent, cpu = [path for path in paths if path.is_file()], [], [], []
            for _ in range(2 * self.size.repetitions + 1):
                stored, used = self.store.stored(prefix), subject.processor_seconds()
                with measure.still():
                    for path in chance.sample(paths, 100):
                        path.write_bytes(chance.randbytes(1024))
                    taken.append(self.sync(subject))
                sent.append((self.store.stored(prefix) - stored) / MIB)
                cpu.append(subject.processor_seconds() - used)
            goal = 0.1 if files == self.size.increments[-1] else None
            what = f"100 changed files among {files:,}"
            self.report.add(f"{what}, until `comb sync --wait` ends", taken, "s", most=goal)
            self.report.add(f"{what}: sent", sent, "MiB")
            self.report.add(f"{what}: the daemon's processor time, writing included", cpu, "s")
            subject.end()

    # 2. The first upload.

    def real_tree(self):
        """Files of this system, and what they are: all of /usr/include and /usr/share, and of /usr/lib what there is room for."""
        if "real" not in self.trees:
            tree, room, files = self.work.fresh("tree") / "tree", self.size.tree, 0
            for top in ("include", "share", "lib"):
                for folder, folders, names in os.walk(f"/usr/{top}"):
                    folders.sort()
                    for path in (pathlib.Path(folder) / name for name in sorted(names)):
                        # What is larger than a tenth of it would be most of it.
                        if path.is_symlink() or not path.is_file() or not 0 < path.stat().st_size <= min(room, self.size.tree // 10):
                            continue
                        copy = tree / path.relative_to("/usr")
                        copy.parent.mkdir(parents=True, exist_ok=True)
                        shutil.copyfile(path, copy)
                        room, files = room - path.stat().st_size, files + 1
            self.trees["real"] = tree, self.size.tree - room, files
        return self.trees["real"]

    def first(self):
        tree, size, files = self.real_tree()
        ways = {"comb": self.comb_sent, "comb, copied into the mount": self.comb_copied}
        ways |= {name: lambda tree, name=name: self.peer(name, tree) for name in ("restic", "rustic", "borg")}
        table = self.context.table(f"First upload of {files:,} real files, {size / MIB:,.0f} MiB", ways)
        taken = table.row("until it is in the store", "s", [(name, 1) for name in ("restic", "rustic", "borg")])
        stored, early = table.row("stored", "MiB"), table.row("of that sealed before the clock runs", "MiB")
        for _ in range(self.size.repetitions):
            for name, way in ways.items():
                # All find it in memory.
                subprocess.run(["tar", "-c", "--file=/dev/zero", "--directory", tree, "."], check=True)
                os.sync()
                try:
                    seconds, bytes_stored, processor, memory = way(tree)
                    if name == "comb":
                        early.add(name, self.sealed / MIB)
                except stage.Skipped as why:
                    taken.failures[name] = str(why)
                    continue
                taken.add(name, seconds, processor, memory)
                stored.add(name, bytes_stored / MIB)
                print(f"first upload: {name}: {seconds:.2f} s", file=sys.stderr, flush=True)
        self.report.add("copied into a volume without a store", self.copied, "s")

    def comb_copied(self, tree):
        """Copied into a volume that has a store, until it is there."""
        subject, prefix = self.volume("first")
        with measure.still():
            busy = measure.busy_seconds()
            copy = lambda: stage.run("cp", "-r", "--preserve=mode,timestamps", tree, subject.root)  # noqa: E731
            taken = measure.seconds(copy) + self.sync(subject)
            busy = measure.busy_seconds() - busy
        self.trees["volume"] = self.key(subject), prefix, tree
        memory = subject.memory_mib()[1]
        subject.end()
        return taken, self.store.stored(prefix), busy, memory

    def comb_sent(self, tree):
        """In a volume, written, when it is given a store: it has yet to be cut, compressed, encrypted and sent, as others have to."""
        subject, prefix = self.volume("first", attach=False)
        with measure.still():
            begin = time.monotonic()
            stage.run("cp", "-r", "--preserve=mode,timestamps", tree, subject.root)
            self.copied.append(time.monotonic() - begin)
        os.sync()
        # Some of it may be sealed, for want of memory or because a minute is over.
        self.sealed = measure.stored_bytes(subject.mounted.state)
        with measure.still():
            busy, begin = measure.busy_seconds(), time.monotonic()
            subject.comb("store", "add", VOLUME, self.store.url(prefix))
            self.sync(subject)
            taken, busy = time.monotonic() - begin, measure.busy_seconds() - busy
        memory = subject.memory_mib()[1]
        subject.end()
        return taken, self.store.stored(prefix), busy, memory

    def peer(self, name, tree):
        """A fresh repository of one who reads the tree on ext4."""
        peer = replica.ALL[name](self.context, self.store)
        peer.root = tree
        with measure.still():
            busy = measure.busy_seconds()
            taken = measure.seconds(peer.send)
            busy = measure.busy_seconds() - busy
        return taken, peer.stored(), busy, peer.memory_mib()

    # 3. Opening elsewhere.

    def opening(self):
        subject, prefix = self.volume("opening")
        measure.small_files(subject.fresh() / "tree", self.size.many // 500, self.size.many, 100, 7)
        self.sync(subject)
        key = self.key(subject)
        seals = len(self.store.objects(prefix, "m"))
        self.opened(f"{self.size.many:,} files, {seals} seals", prefix, key)
        beside = subject.fresh()
        for number in range(self.size.history):
            (beside / "counter").write_text(f"{number}\n", encoding="ascii")
            subject.comb("snapshot", VOLUME)
        self.sync(subject)
        self.opened(f"the same after {self.size.history:,} snapshots", prefix, key)
        subject.end()

    def opened(self, what, prefix, key):
        """Opens it to read and lists its root, by a command and by a mount."""
        commands, mounts, alone, depths, depths_mount, all_requests = [], [], [], [], [], []
        for _ in range(self.size.repetitions):
            requests = self.store.far(FAR_MS)
            machine = Elsewhere(self.work, key, self.store.url(prefix, far=True))
            with measure.still():
                begin = time.monotonic()
                machine.open("--read-only")
                alone.append(time.monotonic() - begin)
                listed = machine.comb("ls", f"{VOLUME}:/")
                commands.append(time.monotonic() - begin)
            stage.expect("t1" in listed, f"`comb ls` says {listed[:200]}")
            asked = requests.new()
            depths.append(requests.depth(asked))
            all_requests.append(len(asked))

            machine = Elsewhere(self.work, key, self.store.url(prefix, far=True))
            with measure.still():
                begin = time.monotonic()
                machine.open("--read-only")
                machine.mount()
                names = os.listdir(machine.mount_point)
                mounts.append(time.monotonic() - begin)
                # The filling goes on; what came until now was waited for, or could have been.
                until = time.monotonic()
            stage.expect("t1" in names, f"the mount shows {names[:9]}")
            asked = requests.new()
            first = asked[0][0]
            depths_mount.append(requests.depth([one for one in asked if one[0] - first < (until - begin) * 1e6][:500]))
            machine.unmount()
        self.report.add(f"{what}: `comb volume open --read-only`", alone, "s")
        self.report.add(f"{what}: with `comb ls` of the root", commands, "s", most=1)
        self.report.add(f"{what}: requests for that", all_requests, "")
        self.report.add(f"{what}: of which each waits for one before", depths, "", most=6)
        self.report.add(f"{what}: `comb volume open`, `comb mount`, `ls`", mounts, "s", most=1)
        self.report.add(f"{what}: requests of which each waits for one before, filling included", depths_mount, "")
        self.store.near()

    # 4. PostgreSQL moves.

    def postgres(self):
        programs = measure.postgres()
        subject, prefix = self.volume("postgres")

        def run(root, program, *words):
            return stage.run(programs / program, *words, user="postgres", timeout=1800)

        def control(root, *words):
            settings = "-k /tmp -p 15999 -c listen_addresses= -c shared_buffers=128MB"
            return run(root, "pg_ctl", "-D", root / "base", "-w", "-l", "/dev/null", "-o", settings, *words)

        client = ("-h", "/tmp", "-p", "15999")
        subject.root.chmod(0o755)
        (subject.root / "base").mkdir(mode=0o700)
        shutil.chown(subject.root / "base", "postgres", "postgres")
        run(subject.root, "initdb", "-D", subject.root / "base", "-A", "trust")
        control(subject.root, "start")
        run(subject.root, "pgbench", *client, "-i", "-q", "-s", self.size.pgbench_scale, "postgres")
        run(subject.root, "psql", *client, "-c", "checkpoint", "postgres")
        control(subject.root, "-m", "fast", "stop")
        files = [path for path in (subject.root / "base").rglob("*") if path.is_file()]
        self.report.add("a base of PostgreSQL", sum(path.stat().st_size for path in files) / MIB, "MiB")
        self.sync(subject)
        key = self.key(subject)
        subject.end()
        until = {"open": [], "mount": [], "start": [], "query": []}
        for _ in range(self.size.repetitions):
            self.store.far(FAR_MS)
            machine = Elsewhere(self.work, key, self.store.url(prefix, far=True))
            with measure.still():
                begin = time.monotonic()
                machine.open()
                until["open"].append(time.monotonic() - begin)
                machine.mount()
                until["mount"].append(time.monotonic() - begin)
                control(machine.mount_point, "start")
                until["start"].append(time.monotonic() - begin)
                query = f"select count(abalance) from pgbench_accounts where aid = {self.size.pgbench_scale * 50_000}"
                answer = run(machine.mount_point, "psql", *client, "-X", "-A", "-t", "-c", query, "postgres")
                until["query"].append(time.monotonic() - begin)
            stage.expect(answer.strip() == "1", f"PostgreSQL says {answer}")
            control(machine.mount_point, "-m", "fast", "stop")
            machine.unmount()
            self.store.near()
        for step, most in (("open", None), ("mount", None), ("start", None), ("query", 5)):
            what = {"open": "it is taken over", "mount": "it is mounted", "start": "PostgreSQL runs", "query": "its first query is answered"}
            self.report.add(f"{FAR_MS} ms a request, until {what[step]}", until[step], "s", most=most)

    # 5. Reading all of it.

    def large_files(self):
        """A volume of few large files, and what they are."""
        subject, prefix = self.volume("large")
        chance, tree = random.Random(7), self.work.fresh("large") / "large"
        tree.mkdir()
        for number in range(16):
            with open(tree / f"large-{number}", "wb") as file:
                for _ in range(self.size.tree // MIB // 16):
                    file.write(chance.randbytes(MIB))
        stage.run("cp", "-r", tree, subject.root)
        self.sync(subject)
        key = self.key(subject)
        subject.end()
        return key, prefix, tree

    def reading(self):
        if "volume" not in self.trees:
            self.comb_copied(self.real_tree()[0])
        for what, (key, prefix, tree) in (("real files", self.trees["volume"]), ("large files", self.large_files())):
            objects = self.store.objects(prefix)
            size = sum(path.stat().st_size for path in objects)
            self.report.add(f"{what}: {len(objects)} packs", size / MIB, "MiB")
            for delay in (0, FAR_MS):
                fetched, thrown, read, local, filled = [], [], [], [], []
                for _ in range(self.size.repetitions):
                    if delay:
                        self.store.far(delay)
                    fetched.append(self.fetch(objects, delay, keep=True))
                    thrown.append(self.fetch(objects, delay, keep=False))
                    machine = Elsewhere(self.work, key, self.store.url(prefix, far=bool(delay)))
                    machine.open("--read-only")
                    with measure.still():
                        begin = time.monotonic()
                        machine.mount()
                        self.read(machine)
                        read.append(time.monotonic() - begin)
                    machine.unmount()
                    machine.forget()
                    machine = Elsewhere(self.work, key, self.store.url(prefix, far=bool(delay)))
                    with measure.still():
                        filled.append(measure.seconds(lambda: machine.open("--read-only", "--wait")))
                    measure.drop_caches()
                    with measure.still():
                        begin = time.monotonic()
                        machine.mount()
                        self.read(machine)
                        local.append(time.monotonic() - begin)
                    stage.run("diff", "--recursive", "--brief", tree, machine.mount_point / tree.name, timeout=3600)
                    machine.unmount()
                    machine.forget()
                    self.store.near()
                where = f"{what}, {delay} ms a request" if delay else f"{what}, loopback"
                ratios = [one / other for one, other in zip(fetched, read)]
                self.report.add(f"{where}: curl fetches all objects into a folder", fetched, "s")
                self.report.add(f"{where}: curl fetches all objects and keeps nothing", thrown, "s")
                self.report.add(f"{where}: mounting and reading all, nothing being here", read, "s")
                self.report.add(f"{where}: the same, all being here, but not in memory", local, "s")
                self.report.add(f"{where}: `comb volume open --wait`", filled, "s")
                self.report.add(f"{where}: speed of reading / of fetching into a folder", ratios, "", least=0.8)

    def read(self, machine):
        command = 'find "$1" -type f -print0 | xargs -0 cat > /dev/null'
        stage.run("sh", "-c", command, "sh", machine.mount_point, timeout=3600)

    def fetch(self, objects, delay, keep):
        """Gets all objects by their URLs, as many at once as Comb's readers do."""
        place = self.work.fresh("fetched")
        endpoint = self.store.far_endpoint if delay else self.store.endpoint
        lines = []
        for path in objects:
            to = place / path.name if keep else "/dev/null"
            lines.append(f'url = "http://{endpoint}/comb-test/{path.relative_to(self.store.bucket)}"\noutput = "{to}"\n')
        config = place / "config"
        config.write_text("".join(lines), encoding="utf-8")
        words = ["curl", "--silent", "--fail", "--parallel", "--parallel-max", REQUESTS, "--aws-sigv4", "aws:amz:us-east-1:s3"]
        words += ["--user", f"{self.store.key}:{self.store.secret}", "--header", "x-amz-content-sha256: UNSIGNED-PAYLOAD", "--config", config]
        with measure.still():
            taken = measure.seconds(lambda: stage.run(*words, timeout=1800))
        if keep:
            came = sum((place / path.name).stat().st_size for path in objects)
            stage.expect(came == sum(path.stat().st_size for path in objects), f"curl fetched {came} bytes")
        shutil.rmtree(place)
        return taken

    # 6. Dropping a snapshot.

    def dropping(self):
        subject, _ = self.volume("dropping", attach=False)
        mounted, chance, folder = subject.mounted, random.Random(7), subject.fresh()
        paths = [folder / f"f{number}" for number in range(2_000)]
        for path in paths:
            path.write_bytes(chance.randbytes(20_000))

        def snapshots(count):
            for _ in range(count):
                chance.choice(paths).write_bytes(chance.randbytes(20_000))
                mounted.comb("snapshot", VOLUME)

        def keep_all_but_one():
            """Sets such a policy; that itself makes a moment."""
            moments = len(json.loads(mounted.comb("log", VOLUME, "--json")))
            # Snapshots by hand are kept by a rule of their own.
            mounted.comb("retain", VOLUME, f"keep snapshots for 1s; keep last {moments}")
            would = len(json.loads(mounted.comb("prune", VOLUME, "--dry-run", "--json"))["drop"])
            stage.expect(would == 1, f"of {moments + 1} moments a prune would drop {would}")

        snapshots(self.size.snapshots)
        taken = []
        for _ in range(self.size.repetitions):
            keep_all_but_one()
            with measure.still():
                begin = time.monotonic()
                told = json.loads(mounted.comb("prune", VOLUME, "--json"))
                taken.append(time.monotonic() - begin)
            stage.expect(len(told["dropped"]) == 1, f"{told['dropped']} were dropped")
        self.report.add(f"dropping 1 of {self.size.snapshots:,} snapshots, mounted: `comb prune`", taken, "s", most=1)
        keep_all_but_one()
        subject.end()
        # Nothing is in anybody's memory, and all that is read is opened before the eyes of strace.
        measure.drop_caches()
        trace, begin = self.work.fresh("trace") / "trace", time.monotonic()
        words = ["strace", "-f", "-o", trace, "-e", "trace=openat", stage.Comb.binary(), "--state", mounted.state]
        told = json.loads(stage.run(*words, "prune", VOLUME, "--json"))
        self.report.add("the same, not mounted, cold, under strace", time.monotonic() - begin, "s")
        stage.expect(len(told["dropped"]) == 1, f"{told['dropped']} were dropped")
        kinds = {PACK_KIND_CHUNKS: set(), 2: set()}
        for name in re.findall(r'"([^"]*packs/[0-9a-f]{64})", O_RDONLY', trace.read_text()):
            path = pathlib.Path(name) if name.startswith("/") else next(mounted.state.rglob(name))
            with open(path, "rb") as pack:
                kinds[pack.read(PACK_KIND_AT + 1)[PACK_KIND_AT]].add(name)
        self.report.add("packs of nodes that are read for it", len(kinds[2]), "")
        self.report.add("packs of data that are read for it", len(kinds[PACK_KIND_CHUNKS]), "", most=0)
        packs = [path for path in mounted.state.rglob("packs/*") if len(path.name) == 64]
        self.report.add("packs that there are", len(packs), "")


def run(context):
    """All parts, or those that are wanted."""
    store = S3(context.work)
    bench = Bench(context, store)
    try:
        for part in PARTS:
            if context.wants(part):
                try:
                    getattr(bench, part)()
                except stage.Skipped as why:
                    bench.report.failures[part] = str(why)
    finally:
        store.end()
