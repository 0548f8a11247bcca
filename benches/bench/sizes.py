"""How much is stored for what is there already.

A dump of 1 GiB with 1 MiB inserted near its start, which comes back in each of the ways in which programs write: as a new file
that takes the old one's name, in place from the insertion on, and as a new file that seals fall into. A file that is copied. A
tree of real files, and a copy of it. Told are the bytes by which packs and manifests grew.
"""

import os
import pathlib
import random
import shutil
import sys

from . import filesystems, measure
from .measure import MIB, stage

# What an edited dump may store, in bytes, and a tree beside its contents.
EDIT_GOAL = 8 * MIB
OVERHEAD_GOAL = 1.03
# What a file may store that is there already, beside the contents of small ones, which lie in the tree.
NAME_GOAL = 256
# Where the insertion is, and how much of the dump is written before each seal that falls into it.
INSERTED_AT, INSERTED = 3_000_000, MIB
SLOW_STEP = 64 * MIB


class Volume:
    """A mount with what it stores."""

    def __init__(self, work):
        self.subject = filesystems.Comb(work)
        self.root = self.subject.root
        self.stored = measure.stored_bytes(self.subject.mounted.state)

    def snapshot(self):
        """Takes one; returns its seconds and the bytes that were stored since the last."""
        taken = measure.seconds(lambda: self.subject.mounted.comb("snapshot", self.subject.mounted.volume))
        before, self.stored = self.stored, measure.stored_bytes(self.subject.mounted.state)
        return taken, self.stored - before

    def again(self):
        """Another day: the daemon starts anew."""
        self.subject.cold()

    def end(self):
        """The numbers mean nothing if what was stored cannot be read."""
        self.subject.end()
        self.subject.mounted.check()


def dump(kind, size):
    """The dump as pieces of 1 MiB: noise, or noise in hexadecimal, which zstd makes about half of."""
    chance = random.Random(kind)
    for _ in range(size // MIB):
        yield chance.randbytes(MIB) if kind == "incompressible" else chance.randbytes(MIB // 2).hex().encode()


def edited(kind, size):
    """The same, edited."""
    at = 0
    for piece in dump(kind, size):
        if at <= INSERTED_AT < at + len(piece):
            yield piece[: INSERTED_AT - at]
            yield random.Random("edit").randbytes(INSERTED)
            piece, at = piece[INSERTED_AT - at :], INSERTED_AT
        yield piece
        at += len(piece)


def write(path, pieces, mode="wb", skip=0, step=None, between=lambda: None):
    """Writes pieces behind the first `skip` bytes, and syncs them; calls `between` after each `step` bytes."""
    done = 0
    with open(path, mode) as file:
        file.seek(skip)
        for piece in pieces:
            if skip >= len(piece):
                skip -= len(piece)
                continue
            done += file.write(piece[skip:])
            skip = 0
            if step and done >= step:
                done = 0
                file.flush()
                between()
        file.flush()
        os.fsync(file.fileno())


def dumps(context, table, kind, size):
    """An edited dump, each way; a copy."""

    def told(what, stored, goal=None):
        table.add(f"{kind}: {what}", stored / MIB, "MiB", most=goal and goal / MIB)

    for way in ("renamed", "in place", "slowly"):
        volume = Volume(context.work)
        path = volume.root / "dump"
        write(path, dump(kind, size))
        _, stored = volume.snapshot()
        if way == "renamed":
            told(f"first, {size // MIB:,} MiB", stored)
            write(volume.root / "new", edited(kind, size))
            os.rename(volume.root / "new", path)
            told("1 MiB inserted, a new file that is renamed", volume.snapshot()[1], EDIT_GOAL)
            volume.again()
            shutil.copyfile(path, volume.root / "copy")
            told("a copy on another day", volume.snapshot()[1], MIB * (1 + size // (1 << 30)))
        elif way == "in place":
            write(path, edited(kind, size), mode="r+b", skip=INSERTED_AT)
            told("1 MiB inserted, in place from there on", volume.snapshot()[1], EDIT_GOAL)
        else:
            seals = []
            write(volume.root / "new", edited(kind, size), step=SLOW_STEP, between=lambda v=volume: seals.append(v.snapshot()))
            seals.append(volume.snapshot())
            told(f"1 MiB inserted, a new file with {len(seals)} seals in it", sum(stored for _, stored in seals), EDIT_GOAL)
        volume.end()


def tree(context, table, folder):
    """A tree of real files, and a copy of it."""
    files, size, different, payload, small = map(int, stage.run(measure.binary("payload"), folder, timeout=3600).split())
    volume = Volume(context.work)
    # Neither links nor owners: files, folders and what is in them.
    copy = ("cp", "-r", "--preserve=mode,timestamps", folder)
    stage.run(*copy, volume.root / "one", timeout=3600)
    _, stored = volume.snapshot()
    volume.again()
    stage.run(*copy, volume.root / "two", timeout=3600)
    _, again = volume.snapshot()
    volume.end()
    what = f"{folder}: {files:,} files, {size / MIB:,.0f} MiB"
    print(f"{what}, {different / MIB:,.0f} different", file=sys.stderr)
    table.add(f"{what}: the different chunks alone", payload / MIB, "MiB")
    table.add(f"{what}: stored", stored / MIB, "MiB", most=payload * OVERHEAD_GOAL / MIB)
    table.add(f"{what}: a copy on another day", again / MIB, "MiB", most=(small + files * NAME_GOAL) / MIB)


def run(context):
    """Dumps and a tree."""
    table = context.table("What is there already")
    if context.wants("dumps"):
        for kind in ("incompressible", "compressible"):
            dumps(context, table, kind, context.of(1024, 64) * MIB)
    if context.wants("tree"):
        tree(context, table, pathlib.Path(context.of("/usr/lib", "/usr/include")))
