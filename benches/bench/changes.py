"""How much a seal stores for scattered overwrites of a database file.

A file of 8 KiB pages on a mount of Comb; in each round random pages are overwritten and synced, and a snapshot is taken. Told are
the bytes by which packs and manifests grew, divided by the bytes that were dirtied, and the seconds of the snapshot. Twice:
with pages that do not compress, and with pages that zstd makes 0.67 of their size. What is read when it is cold is compared with
what was written, which stands in a file of the disk as well.
"""

import os
import random
import sys

from . import filesystems, measure
from .measure import MIB, PAGE_BYTES, stage

# What a seal may store for each byte dirtied, in the first round, in the 20th on the same file, and where few pages are dirty.
GOALS = {"incompressible": (1.1, 1.25, None), "compressible": (0.8, 0.95, 1.0)}


def fill(path, pages, kind):
    """Writes the file in order, as a load of a database does."""
    chance = random.Random(kind)
    with open(path, "wb") as file:
        for _ in range(pages):
            file.write(measure.page(chance, kind))
        file.flush()
        os.fsync(file.fileno())


class Volume:
    """A mount with its snapshots and what they store."""

    def __init__(self, work):
        self.subject = filesystems.Comb(work)
        self.state = self.subject.mounted.state

    def snapshot(self):
        """Takes one; returns its seconds and the bytes it stored."""
        before = measure.stored_bytes(self.state)
        taken = measure.seconds(lambda: self.subject.mounted.comb("snapshot", self.subject.mounted.volume))
        return taken, measure.stored_bytes(self.state) - before


def rounds(context, table, kind):
    """All rounds on one file."""
    pages, count, number = context.of((131_072, 2_000, 20), (16_384, 250, 5))
    volume = Volume(context.work)
    path, same = volume.subject.fresh() / "base", context.work.fresh("same") / "base"
    for one in (same, path):
        fill(one, pages, kind)

    def overwrite(seed, count):
        measure.overwrite(same, seed, pages, count, kind)
        return measure.overwrite(path, seed, pages, count, kind)

    taken, stored = volume.snapshot()
    print(f"{kind}: {pages * PAGE_BYTES / MIB:.0f} MiB filled, first seal {taken:.2f} s, {stored / MIB:.1f} MiB", file=sys.stderr, flush=True)
    # The short form has no 20th round; its last stands for nothing.
    goals = {1: GOALS[kind][0], 20: GOALS[kind][1]}
    for seed in range(1, number + 1):
        dirtied = overwrite(f"{kind}-{seed}", count)
        taken, stored = volume.snapshot()
        what = f"{kind}, {count:,} pages, round {seed}"
        table.add(f"{what}: stored / dirtied", stored / dirtied, "×", most=goals.get(seed))
        table.add(f"{what}: snapshot", taken, "s")
    few = max(1, count // 10)
    dirtied = overwrite(f"{kind}-few", few)
    taken, stored = volume.snapshot()
    table.add(f"{kind}, {few} pages after that: stored / dirtied", stored / dirtied, "×", most=GOALS[kind][2])
    table.add(f"{kind}, {few} pages after that: snapshot", taken, "s")
    # The numbers mean nothing if what was stored cannot be read.
    volume.subject.cold()
    stage.expect(measure.sum_of(path) == measure.sum_of(same), f"{kind}: the file has other bytes than were written")
    volume.subject.end()
    volume.subject.mounted.check()


def run(context):
    """Both kinds."""
    table = context.table("Scattered overwrites")
    for kind in GOALS:
        rounds(context, table, kind)
