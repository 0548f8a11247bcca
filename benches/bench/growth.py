"""What a change costs, by how much else there is: 100 changed files among 10⁴ to 10⁶, 2,000 changed pages in 1 to 16 GiB."""

import json
import os
import random
import subprocess
import sys

from . import measure, replica
from .measure import MIB, PAGE_BYTES, stage
from .report import OURS, median
from .s3 import S3, VOLUME

KIND = "compressible"
# Restic reads all that there is for each change.
FILES = {OURS: 1_000_000, "btrfs": 1_000_000, "restic": 1_000_000}
GIB = {OURS: 16, "btrfs": 16, "restic": 4}


def again(context, call):
    """The median of some repetitions, in seconds."""
    taken = []
    for number in range(context.repetitions):
        change, send = call(number)
        change()
        with measure.still():
            taken.append(measure.seconds(send))
    return median(taken)


def files(context, curves, name, store, count):
    """A tree of so many files."""
    one = replica.ALL[name](context, store)
    try:
        tree, chance = one.root / "tree", random.Random(count)
        taken = measure.small_files(tree, max(1, count // 500), count, 1024, 7)
        if name != "restic":
            curves.add("creating a file", "µs", name, count, taken / count * 1e6)
        os.sync()
        one.send()
        paths = [path for folder in sorted(tree.iterdir()) for path in sorted(folder.iterdir())]

        def change():
            for path in chance.sample(paths, 100):
                path.write_bytes(chance.randbytes(1024))
            os.sync()

        before = one.stored()
        taken = again(context, lambda _: (change, one.send))
        curves.add("100 files changed, until they are in the second place", "s", name, count, taken)
        curves.add("100 files changed: stored", "MiB", name, count, (one.stored() - before) / MIB / context.repetitions)
        if one.memory_mib():
            curves.add("memory, at most", "MiB", name, count, one.memory_mib())
        if name != OURS:
            return
        freezes = []

        def snapshot():
            freezes.append(json.loads(one.comb("snapshot", VOLUME, "--json"))["freeze_us"])

        curves.add("snapshot of 100 changed files", "s", name, count, again(context, lambda _: (change, snapshot)))
        curves.add("pause of all operations for it", "µs", name, count, max(1, median(freezes)))
        one.comb("snapshot", VOLUME, "--tag", "before")
        change()
        one.comb("snapshot", VOLUME, "--tag", "after")
        compare = lambda: one.comb("diff", f"{VOLUME}@before", "after")  # noqa: E731
        curves.add("`comb diff` of 100 changes", "s", name, count, again(context, lambda _: (lambda: None, compare)))
        one.send()

        def elsewhere(_):
            machine = one.bare()
            return measure.drop_caches, lambda: (machine.open("--read-only"), machine.comb("ls", f"{VOLUME}:/"))

        curves.add("opening on a bare machine, with `comb ls`", "s", name, count, again(context, elsewhere))
    finally:
        one.end()


def pages(context, curves, name, store, gib):
    """A database file of so many GiB, or of so many 16 MiB in the short form."""
    one = replica.ALL[name](context, store)
    try:
        count, chance = gib * context.of(131_072, 2_048), random.Random("base")
        path, many = one.root / "base", context.of(2_000, 100)
        with open(path, "wb") as file:
            for _ in range(count // 128):
                file.write(b"".join(measure.page(chance, KIND) for _ in range(128)))
            os.fsync(file.fileno())
        one.send()
        before = one.stored()

        def round_of(number):
            return lambda: measure.overwrite(path, f"{gib} {number}", count, many, KIND), one.send

        taken = again(context, round_of)
        dirtied = many * PAGE_BYTES * context.repetitions
        curves.add(f"{many:,} pages overwritten, until they are in the second place", "s", name, gib, taken)
        curves.add(f"{many:,} pages overwritten: stored / dirtied", "×", name, gib, (one.stored() - before) / dirtied)
        if one.memory_mib():
            curves.add("memory, at most", "MiB", name, gib, one.memory_mib())
    finally:
        one.end()


def run(context):
    """Each amount of each has a store and a folder of its own, which is removed at once: all of it would not find room."""
    by_files = context.curves("Growth with files", "files")
    by_bytes = context.curves("Growth with bytes", "GiB")
    for curves, measured, most, amounts in (
        (by_files, files, FILES, context.of((10_000, 100_000, 1_000_000), (500, 2_000))),
        (by_bytes, pages, GIB, context.of((1, 4, 16), (1, 2))),
    ):
        for amount in amounts:
            for name in context.chosen([name for name in most if amount <= most[name]]):
                work = context.work
                context.work = measure.Work(work.path.parent)
                store = None
                try:
                    store = S3(context.work)
                    measured(context, curves, name, store, amount)
                except (stage.Skipped, stage.Failed, OSError, subprocess.SubprocessError) as why:
                    if name == OURS:
                        raise
                    print(f"{name} is left out: {getattr(why, 'stdout', None) or why}", file=sys.stderr)
                finally:
                    if store:
                        store.end()
                    context.work.remove()
                    context.work = work
