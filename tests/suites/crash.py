"""Writers that tell what was acknowledged, and the check of what a crash left.

Each writer is a process. It does one kind of durable step over and over and tells each step, once the kernel said that it
is durable, to a file outside the filesystem under test: a line "WRITER STEP NUMBERS". Contents follow from the numbers, so
the check needs nothing but these lines.

What is promised, and checked:
- append: bytes before an acknowledged fsync are there, in their place.
- page: a page holds the acknowledged version or a later one, and never parts of two.
- rename: after fsync of the file, rename, and fsync of the directory, the name leads to that version or a later one, whole.
- make: a file whose directory was synced is there, whole; one whose removal was synced is not.
- base: a committed row of SQLite is there (WAL, synchronous=FULL), and the file is sound.
- order (without the kernel's writeback cache only): of steps that nobody synced a prefix is there, over all files.
"""

import collections
import os
import random
import signal
import sqlite3
import struct
import sys
import time

import stage

PAGE_BYTES = 4096
PAGES = 256
ORDER_FILES = 4
ORDER_RECORD = struct.Struct("<QQ")


def content(*words, least=100, most=6000):
    """The bytes that belong to these numbers."""
    chance = random.Random("-".join(map(str, words)))
    return chance.randbytes(chance.randrange(least, most))


def page(number, version):
    """A page that names itself."""
    chance = random.Random(f"page-{number}-{version}")
    return struct.pack("<QQ", number, version) + chance.randbytes(PAGE_BYTES - 16)


class Teller:
    """How a writer says what is durable, and rests. A careless one never syncs, so that the check has something to find."""

    def __init__(self, log, name, careless, rest_seconds):
        self.log, self.name, self.careless, self.rest_seconds = log, name, careless, rest_seconds

    def tell(self, step, *numbers):
        # One write of a short line to a file opened for appending is whole, whoever else writes.
        os.write(self.log, f"{self.name} {step} {' '.join(map(str, numbers))}\n".encode())
        time.sleep(self.rest_seconds)

    def sync(self, descriptor, data_only=False):
        if not self.careless:
            (os.fdatasync if data_only else os.fsync)(descriptor)

    def sync_folder(self, folder):
        descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
        self.sync(descriptor)
        os.close(descriptor)


def write_new(path, data, teller):
    """A new file, durable but for its name."""
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o644)
    os.write(descriptor, data)
    teller.sync(descriptor)
    os.close(descriptor)


def append(folder, teller, chance):
    descriptor = os.open(folder / "append", os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    teller.sync_folder(folder)
    for number in range(1 << 30):
        os.write(descriptor, content("append", number))
        if chance.random() < 0.3:
            teller.sync(descriptor, data_only=chance.random() < 0.5)
            teller.tell("append", number)


def pages(folder, teller, chance):
    descriptor = os.open(folder / "pages", os.O_RDWR | os.O_CREAT, 0o644)
    os.ftruncate(descriptor, PAGES * PAGE_BYTES)
    teller.sync(descriptor)
    teller.sync_folder(folder)
    for version in range(1, 1 << 30):
        some = [chance.randrange(PAGES) for _ in range(chance.randrange(1, 4))]
        for number in some:
            os.pwrite(descriptor, page(number, version), number * PAGE_BYTES)
        teller.sync(descriptor, data_only=True)
        teller.tell("page", version, *some)


def rename(folder, teller, chance):
    del chance
    for version in range(1, 1 << 30):
        write_new(folder / "renamed.new", content("rename", version), teller)
        os.rename(folder / "renamed.new", folder / "renamed")
        teller.sync_folder(folder)
        teller.tell("rename", version)


def make(folder, teller, chance):
    home = folder / "made"
    home.mkdir()
    teller.sync_folder(folder)
    for number in range(1 << 30):
        write_new(home / f"{number}", content("make", number), teller)
        teller.sync_folder(home)
        teller.tell("make", number)
        if number >= 3 and chance.random() < 0.5:
            teller.tell("going", number - 3)
            os.unlink(home / f"{number - 3}")
            teller.sync_folder(home)
            teller.tell("gone", number - 3)


def base(folder, teller, chance):
    del chance
    connection = sqlite3.connect(folder / "base.db", isolation_level=None, timeout=60)
    connection.execute("pragma journal_mode=wal")
    connection.execute(f"pragma synchronous={'off' if teller.careless else 'full'}")
    connection.execute("create table row (number integer primary key, filler blob)")
    teller.sync_folder(folder)
    for number in range(1 << 30):
        connection.execute("insert into row values (?, ?)", (number, content("base", number)))
        teller.tell("base", number)


def order(folder, teller, chance):
    del teller, chance
    files = [os.open(folder / f"order-{n}", os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644) for n in range(ORDER_FILES)]
    for number in range(1 << 30):
        os.write(files[number % ORDER_FILES], ORDER_RECORD.pack(number, ~number & 0xFFFF_FFFF_FFFF_FFFF))


WRITERS = {"append": append, "page": pages, "rename": rename, "make": make, "base": base}


class Writers:
    """The writers of one round, at work in a folder of their own.

    Those who rest after each step write no more on a fast machine than on a slow one, for what has little room.
    """

    def __init__(self, folder, log, seed, ordered=False, careless=False, rest_seconds=0):
        self.folder, self.log_path, self.children = folder, log, []
        folder.mkdir()
        teller = Teller(os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_APPEND), "start", careless, rest_seconds)
        teller.sync_folder(folder.parent)
        teller.tell("start")
        for name, writer in {**WRITERS, **({"order": order} if ordered else {})}.items():
            child = os.fork()
            if child == 0:
                teller.name = name
                self.work(writer, teller, random.Random(f"{seed}-{name}"))
            self.children.append(child)
        os.close(teller.log)

    def work(self, writer, teller, chance):
        """A writer's life; what stops it is told, for a healthy filesystem stops nobody."""
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        try:
            writer(self.folder, teller, chance)
        except (OSError, sqlite3.Error) as error:
            teller.tell("error", type(error).__name__, str(error).replace("\n", " "))
        finally:
            sys.stdout.flush()
            os._exit(0)

    def signal(self, what):
        """Sends all of them a signal."""
        for child in self.children:
            os.kill(child, what)

    def end(self):
        """Kills them; returns when they are gone."""
        self.signal(signal.SIGKILL)
        for child in self.children:
            os.waitpid(child, 0)
        self.children = []

    def told(self):
        """What they told so far, by step."""
        told = collections.defaultdict(list)
        text = self.log_path.read_text(encoding="utf-8")
        # The last line may be in the making.
        for line in text.split("\n")[:-1]:
            name, step, *numbers = line.split(" ")
            if step == "error":
                told["error"].append(f"{name}: {' '.join(numbers)}")
            else:
                told[step].append([int(number) for number in numbers if number])
        return told


def check(folder, told, ordered=False):
    """Compares a round's folder after a crash with what was told; returns how many steps it confirmed."""
    if not told["start"]:
        return 0
    stage.expect(folder.is_dir(), f"{folder.name} is gone, though its parent was synced")
    check_append(folder, told, ordered)
    check_pages(folder, told)
    check_rename(folder, told)
    check_make(folder, told)
    check_base(folder, told)
    if ordered:
        check_order(folder)
    return sum(len(told[step]) for step in ("append", "page", "rename", "make", "gone", "base"))


def check_append(folder, told, ordered):
    last = told["append"][-1][0] if told["append"] else -1
    path = folder / "append"
    if last < 0 and not path.exists():
        return
    data, at, number = path.read_bytes(), 0, 0
    while at < len(data) or number <= last:
        expected = content("append", number)
        piece = data[at : at + len(expected)]
        if piece != expected:
            stage.expect(number > last, f"append: record {number} of {last} acknowledged ones is wrong, at byte {at}")
            # POSIX says nothing about bytes behind the last fsync; the order of operations does.
            stage.expect(not ordered or expected.startswith(piece), f"append: record {number} is not a prefix")
            return
        at, number = at + len(expected), number + 1


def check_pages(folder, told):
    least = dict.fromkeys(range(PAGES), 0)
    for version, *some in told["page"]:
        least |= {number: version for number in some}
    path = folder / "pages"
    if not told["page"] and not path.exists():
        return
    data = path.read_bytes()
    stage.expect(len(data) == PAGES * PAGE_BYTES or not told["page"], f"pages: {len(data)} bytes long")
    for number in range(len(data) // PAGE_BYTES):
        have = data[number * PAGE_BYTES : (number + 1) * PAGE_BYTES]
        version = struct.unpack_from("<QQ", have)[1]
        stage.expect(version >= least[number], f"page {number} has version {version}, acknowledged was {least[number]}")
        whole = page(number, version) if version else bytes(PAGE_BYTES)
        stage.expect(have == whole, f"page {number} is made of more than one version")


def check_rename(folder, told):
    if not told["rename"]:
        return
    last, path = told["rename"][-1][0], folder / "renamed"
    stage.expect(path.exists(), f"rename: the name is gone; version {last} was acknowledged")
    have = path.read_bytes()
    # The one in the making may have come through as well.
    whole = [version for version in (last, last + 1) if content("rename", version) == have]
    stage.expect(whole, f"rename: the file is neither version {last} nor the next")


def check_make(folder, told):
    going, gone = ({number for (number,) in told[step]} for step in ("going", "gone"))
    for (number,) in told["make"]:
        path = folder / "made" / f"{number}"
        if number in gone:
            stage.expect(not path.exists(), f"make: file {number} is back, though its removal was acknowledged")
        elif number not in going:
            stage.expect(path.exists(), f"make: file {number} is gone, though it was acknowledged")
            stage.expect(path.read_bytes() == content("make", number), f"make: file {number} has wrong bytes")


def check_base(folder, told):
    if not told["base"]:
        return
    last = told["base"][-1][0]
    try:
        connection = sqlite3.connect(folder / "base.db", timeout=60)
        verdict = connection.execute("pragma integrity_check").fetchall()
        stage.expect(verdict == [("ok",)], f"base: integrity_check says {verdict[:3]}")
        rows = dict(connection.execute("select number, filler from row"))
        connection.close()
    except sqlite3.Error as error:
        raise stage.Failed(f"base: {error}") from error
    lost = [number for number in range(last + 1) if rows.get(number) != content("base", number)]
    stage.expect(not lost, f"base: {len(lost)} of {last + 1} committed rows are gone or wrong, such as {lost[:3]}")


def check_order(folder):
    counts = []
    for file in range(ORDER_FILES):
        path = folder / f"order-{file}"
        data = path.read_bytes() if path.exists() else b""
        stage.expect(len(data) % ORDER_RECORD.size == 0, f"order: a write of {path.name} is there in part")
        counts.append(len(data) // ORDER_RECORD.size)
        for place, (number, inverse) in enumerate(ORDER_RECORD.iter_unpack(data)):
            right = number == place * ORDER_FILES + file and inverse == ~number & 0xFFFF_FFFF_FFFF_FFFF
            stage.expect(right, f"order: record {place} of {path.name} is wrong")
    total = sum(counts)
    prefix = [len(range(file, total, ORDER_FILES)) for file in range(ORDER_FILES)]
    stage.expect(counts == prefix, f"order: the files hold {counts} records, which is no prefix ({prefix} would be)")
