"""What does not grow with the volume.

On a mount of Comb with a million files: the daemon's memory after creating, listing and reading them all; with ten thousand snapshots, the longest
freeze, and the longest stall that processes outside see while more are taken; `comb diff` of 100 changes; the bytes that sealing 100 changes writes.

Stalls are the longest single operation of two processes: one stats a file with a request to the daemon each time, one
writes 4 KiB and syncs, each compared with the same time without snapshots, since the disk and the scheduler stall, too.
"""

import ctypes
import json
import multiprocessing
import os
import random
import subprocess
import time

from . import filesystems, measure, report
from .measure import MIB, stage

AT_FDCWD = -100
# The kernel must ask the filesystem; otherwise it answers from its cache, where nothing can stall.
AT_STATX_FORCE_SYNC = 0x2000
STATX_BASIC_STATS = 0x7FF
STATX_BYTES = 256


# What the daemon may take beside its cache, and the cache it is configured with.
MEMORY_MIB, CACHE_MIB = 200, 128


class Scale:
    """How much there is."""

    def __init__(self, context):
        self.files, self.folders = context.of((1_000_000, 2_000), (20_000, 40))
        self.snapshots = context.of(10_000, 50)
        self.dirty, self.changed = context.of((1_000, 100), (200, 100))
        self.stalls = context.of(20, 5)


def stat_loop(paths, stop, longest):
    """Stats random files until it is stopped; the longest one in milliseconds."""
    libc, buffer, chance = ctypes.CDLL(None, use_errno=True), ctypes.create_string_buffer(STATX_BYTES), random.Random(7)
    while not stop.is_set():
        path = os.fsencode(chance.choice(paths))
        begin = time.monotonic()
        failed = libc.statx(AT_FDCWD, path, AT_STATX_FORCE_SYNC, STATX_BASIC_STATS, buffer)
        taken = time.monotonic() - begin
        if failed:
            raise OSError(ctypes.get_errno(), f"statx of {path}")
        longest.value = max(longest.value, taken * 1000)


def write_loop(folder, stop, longest):
    """Creates, writes and syncs until it is stopped; the longest round in milliseconds."""
    data, number = os.urandom(4096), 0
    while not stop.is_set():
        begin = time.monotonic()
        descriptor = os.open(folder / f"w{os.getpid()}-{number % 50}", os.O_WRONLY | os.O_CREAT, 0o644)
        os.write(descriptor, data)
        os.fsync(descriptor)
        os.close(descriptor)
        longest.value = max(longest.value, (time.monotonic() - begin) * 1000)
        number += 1


def stalls(folder, paths, during):
    """Runs both loops beside `during()`; returns the longest stat and write in milliseconds."""
    stop = multiprocessing.Event()
    longest = [multiprocessing.Value("d", 0), multiprocessing.Value("d", 0)]
    loops = [
        multiprocessing.Process(target=stat_loop, args=(paths, stop, longest[0])),
        multiprocessing.Process(target=write_loop, args=(folder, stop, longest[1])),
    ]
    for loop in loops:
        loop.start()
    time.sleep(0.5)
    # The start of a process is not a stall of the filesystem.
    longest[0].value = longest[1].value = 0
    try:
        during()
    finally:
        stop.set()
        for loop in loops:
            loop.join()
    stage.expect(all(loop.exitcode == 0 for loop in loops), "a loop beside the snapshots failed")
    return longest[0].value, longest[1].value


def change(paths, seed):
    """Gives some files new contents, all durable."""
    chance = random.Random(seed)
    for path in paths:
        path.write_bytes(chance.randbytes(1024))
    os.sync()


def run(context):
    """All of it, on one volume."""
    scale, work, table = Scale(context), context.work, context.table("Scale")
    subject = filesystems.Comb(work)
    mounted = subject.mounted
    tree = subject.fresh() / "tree"

    def comb(*words):
        return mounted.comb(*words, timeout=3600)

    def memory(when):
        now, most = subject.memory_mib()
        table.add(f"daemon's memory, {when}", now, "MiB")
        table.add(f"daemon's highest memory, {when}", most, "MiB", MEMORY_MIB + CACHE_MIB)

    taken = measure.small_files(tree, scale.folders, scale.files, 1024, 7)
    table.add(f"creating {scale.files:,} files", taken, "s")
    memory("all created")
    table.add("first snapshot", measure.seconds(lambda: comb("snapshot", mounted.volume)), "s")
    subject.cold()
    words = ["find", tree, "-type", "f", "-printf", "%s\n"]
    table.add("find + stat of all, cold", measure.seconds(lambda: subprocess.run(words, stdout=subprocess.DEVNULL, check=True)), "s")
    memory("all listed")
    command = 'find "$1" -type f -print0 | xargs -0 cat > /dev/null'
    table.add("reading all", measure.seconds(lambda: subprocess.run(["sh", "-c", command, "sh", tree], check=True)), "s")
    memory("all read")

    paths = [path for folder in sorted(tree.iterdir())[:100] for path in sorted(folder.iterdir())]
    beside, freezes_us = subject.fresh(), []

    def snapshot(*words):
        freezes_us.append(json.loads(comb("snapshot", mounted.volume, "--json", *words))["freeze_us"])

    with measure.still():
        begin = time.monotonic()
        for number in range(scale.snapshots):
            (beside / "counter").write_text(f"{number}\n", encoding="ascii")
            snapshot()
        taken = time.monotonic() - begin
    table.add(f"{scale.snapshots:,} snapshots, each", taken / max(1, scale.snapshots) * 1000, "ms")

    chance = random.Random(7)
    with measure.still():
        quiet = stalls(beside, paths, lambda: time.sleep(scale.stalls))
    table.add("longest stat, no snapshots", quiet[0], "ms")
    table.add("longest write and sync, no snapshots", quiet[1], "ms")

    def snapshots():
        for seed in range(scale.stalls):
            for path in chance.sample(paths, scale.dirty):
                with open(path, "r+b") as file:
                    file.write(b"dirty %d" % seed)
            snapshot()

    with measure.still():
        busy = stalls(beside, paths, snapshots)
    table.add(f"longest stat, {scale.stalls} snapshots of {scale.dirty:,} dirty files", busy[0], "ms", 50)
    table.add(f"longest write and sync, {scale.stalls} snapshots of {scale.dirty:,} dirty files", busy[1], "ms", 50)

    table.add(f"longest freeze of {len(freezes_us):,} snapshots", max(freezes_us) / 1000, "ms", 5)
    table.add("freeze, median", report.median(freezes_us), "µs")

    comb("snapshot", mounted.volume, "--tag", "before")
    comb("snapshot", mounted.volume, "--tag", "before-too")
    stored = measure.stored_bytes(mounted.state)
    everywhere = [path for folder in tree.iterdir() for path in [next(folder.iterdir())]]
    change(chance.sample(everywhere, min(scale.changed, len(everywhere))), "changed")
    with measure.still():
        taken = measure.seconds(lambda: comb("snapshot", mounted.volume, "--tag", "after"))
    table.add(f"sealing {scale.changed} changed files", taken, "s", 0.1)
    table.add(f"bytes stored by sealing {scale.changed} changed files", (measure.stored_bytes(mounted.state) - stored) / MIB, "MiB", 2)
    stored = measure.stored_bytes(mounted.state)
    table.add("a snapshot with nothing changed", measure.seconds(lambda: comb("snapshot", mounted.volume)), "s")
    table.add("bytes stored by it", (measure.stored_bytes(mounted.state) - stored) / MIB, "MiB")

    def compare(name, *words):
        output = []
        with measure.still():
            times = [measure.seconds(lambda: output.append(comb("diff", *words))) for _ in range(5)]
        lines = len(output[0].splitlines())
        stage.expect(lines >= min(scale.changed, len(everywhere)), f"comb diff shows {lines} lines:\n{output[0][:500]}")
        table.add(f"comb diff of {scale.changed} changes {name}, with the start of the program", times[0] * 1000, "ms", 100)
        table.add(f"the same {name}, median of 5", report.median(times) * 1000, "ms", 100)

    newest = json.loads(comb("log", mounted.volume, "--snapshots", "-n", "4", "--json"))
    seqs = {tag: str(seal["seq"]) for seal in newest for tag in seal["snapshot"]["tags"]}
    compare("by seq", f"{mounted.volume}@{seqs['before']}", seqs["after"])
    compare("by tag", f"{mounted.volume}@before", "after")
    subject.end()
    table.add("mounting again", measure.seconds(mounted.mount), "s")
    subject.end()

