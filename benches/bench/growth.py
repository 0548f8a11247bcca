"""What a change costs, by how much else there is: 100 changed files among 10⁴ to 10⁶, 2,000 changed pages in 1 to 16 GiB.

What came to the second place is compared with what is there: trees are restored, the database file goes through a pipe, since for another 16 GiB there is no
room. btrfs, of whose streams no file can be read without replaying all, is compared in trees alone.
"""

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
# Up to how much each is measured, and why not with more, or not at all.
FILES = {OURS: 1_000_000, "btrfs": 1_000_000, "restic": 1_000_000}
GIB = {OURS: 16, "btrfs": 16, "restic": 4}
READS_ALL = "goes through all that there is for each change"
LEFT_OUT = {
    "borg, rustic": f"{READS_ALL}, as restic does, which stands for them",
    "s3ql": "makes fewer than 1,000 files a second and takes 20 s for 2,000 pages of 1 GiB (`replica`)",
}


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
        if name == OURS:
            moments(context, curves, one, count, change)
        one.restore(context.work.fresh("restored"))()
        one.compare()
    finally:
        one.end()


def moments(context, curves, one, count, change):
    """What only Comb has: snapshots, their differences, and opening elsewhere."""
    freezes = []

    def snapshot():
        freezes.append(json.loads(one.comb("snapshot", VOLUME, "--json"))["freeze_us"])

    curves.add("snapshot of 100 changed files", "s", OURS, count, again(context, lambda _: (change, snapshot)))
    curves.add("pause of all operations for it", "µs", OURS, count, max(1, median(freezes)))
    one.comb("snapshot", VOLUME, "--tag", "before")
    change()
    one.comb("snapshot", VOLUME, "--tag", "after")
    compare = lambda: one.comb("diff", f"{VOLUME}@before", "after")  # noqa: E731
    curves.add("`comb diff` of 100 changes", "s", OURS, count, again(context, lambda _: (lambda: None, compare)))
    one.send()

    def elsewhere(_):
        machine = one.bare()
        return measure.drop_caches, lambda: (machine.open("--read-only"), machine.comb("ls", f"{VOLUME}:/"))

    curves.add("opening on a bare machine, with `comb ls`", "s", OURS, count, again(context, elsewhere))


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
        if hasattr(one, "first_file"):
            stage.expect(sum_kept(one, path) == measure.sum_of(path), f"{name}: the second place has other bytes")
    finally:
        one.end()


def sum_kept(one, path):
    """The hash of a file as it is in the second place."""
    out, into = os.pipe()
    with subprocess.Popen(["b2sum"], stdin=out, stdout=subprocess.PIPE, text=True) as reader:
        os.close(out)
        try:
            one.first_file(path, f"/dev/fd/{into}")()
        finally:
            os.close(into)
        return reader.stdout.read().split()[0]


def run(context):
    """Each amount of each has a store and a folder of its own, which is removed at once: all of it would not find room."""
    by_files = context.curves("Growth with files", "files")
    by_bytes = context.curves("Growth with bytes", "GiB")
    for curves, measured, most, amounts in (
        (by_files, files, FILES, context.of((10_000, 100_000, 1_000_000), (500, 2_000))),
        (by_bytes, pages, GIB, context.of((1, 4, 16), (1, 2))),
    ):
        curves.failures |= LEFT_OUT
        for amount in amounts:
            for name in context.chosen(most):
                what = f"{name}, {amount:,} {curves.axis}"
                if amount > most[name]:
                    curves.failures[what] = READS_ALL
                    continue
                work = context.work
                context.work = measure.Work(work.path.parent)
                store = None
                try:
                    store = S3(context.work)
                    measured(context, curves, name, store, amount)
                except (stage.Skipped, stage.Failed, OSError, subprocess.SubprocessError) as why:
                    curves.failures[what] = str(getattr(why, "stdout", None) or why)
                    print(f"{what} is left out: {curves.failures[what]}", file=sys.stderr)
                finally:
                    if store:
                        store.end()
                    context.work.remove()
                    context.work = work
