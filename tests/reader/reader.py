#!/usr/bin/env python3
"""A second reader of Comb's format, written from `fs/docs/format.md` and `fs/docs/crypto.md` alone: what a person uses
in ten years when nothing else builds any more.

    reader.py moments SOURCE                        the moments, newest first
    reader.py list    SOURCE [--at MOMENT]          a line of JSON for each path, with a hash of its content
    reader.py restore SOURCE TO [--at MOMENT]       the tree of a moment as a new folder
    reader.py check   SOURCE                        everything of all moments

SOURCE is a volume's folder, or a store's (`fs/docs/replication.md`, section 1) with `--key`. A MOMENT is a seq, a tag or
the beginning of a uuid; without one it is the newest. Owners and devices need root.

Everything is checked before it is used: signatures, hashes, tags, names, order, limits. What the documents say no
writer makes is refused. The journal is not replayed, so what was never sealed is not seen. Ends with 0 when all is well, with 1 when anything was damaged or could not be restored.

Needs the packages of `requirements.txt`.
"""

import argparse
import base64
import contextlib
import dataclasses
import functools
import json
import os
import pathlib
import re
import stat
import sys
import uuid

import blake3
import cryptography.exceptions
import zstandard
from cryptography.hazmat.primitives.asymmetric import ed25519
from cryptography.hazmat.primitives.ciphers import aead

KIB, MIB = 1 << 10, 1 << 20
U32_MAX, I64_MAX, U64_MAX = (1 << 32) - 1, (1 << 63) - 1, (1 << 64) - 1
VERSION, MANIFEST_VERSIONS = 1, (2, 3)
FRAME_CHUNK, FRAME_NODE, FRAME_PAGE = 1, 2, 3
NAME_BYTES = {FRAME_CHUNK: 16, FRAME_NODE: 32, FRAME_PAGE: 32}
FRAME_BYTES_MAX = {FRAME_CHUNK: MIB, FRAME_NODE: 128 * KIB, FRAME_PAGE: 128 * KIB}


class Refused(Exception):
    """Something is not as the documents say it must be."""


def need(truth, sentence):
    """Refuses, with a sentence that says what is wrong, unless it is true."""
    if not truth:
        raise Refused(sentence)


@contextlib.contextmanager
def reading(what):
    """Lets what is refused inside say where that was."""
    try:
        yield
    except Refused as refused:
        raise Refused(f"{what}: {refused}") from None
    except OSError as error:
        raise Refused(f"{what}: {error.strerror}") from None


# Bytes (format.md, before section 1)


class Cursor:
    """Reads one thing after the other."""

    def __init__(self, data):
        self.data, self.at = bytes(data), 0

    def take(self, count):
        """The next bytes."""
        begin = self.at
        self.at += count
        need(self.at <= len(self.data), "it ends too early")
        return self.data[begin : self.at]

    def rest(self):
        """All that is left."""
        return self.take(len(self.data) - self.at)

    def number(self, size, signed=False):
        """A number of so many bytes."""
        return int.from_bytes(self.take(size), "little", signed=signed)

    def varint(self, most=U64_MAX):
        """LEB128 in its shortest form."""
        value = 0
        for shift in range(0, 70, 7):
            byte = self.take(1)[0]
            value |= (byte & 0x7F) << shift
            if byte < 0x80:
                need(byte or not shift, "a varint is longer than it has to be")
                need(value <= most, "a number is above its limit")
                return value
        raise Refused("a varint has more than ten bytes")

    def zigzag(self):
        """A signed number as a varint."""
        value = self.varint()
        return value >> 1 ^ -(value & 1)

    def bytes(self, most):
        """A varint length and that many bytes."""
        return self.take(self.varint(most))

    def zeros(self, count):
        """Reserved bytes."""
        need(not any(self.take(count)), "reserved bytes are not zero")

    def magic(self, magic):
        """What an object begins with, and its version."""
        need(self.take(8) == magic, f"it does not begin with {magic.decode()}")
        return self.number(2)

    def end(self):
        """Nothing may be left over."""
        need(self.at == len(self.data), f"{len(self.data) - self.at} bytes are left over")


def known(version, versions=(VERSION,)):
    """A later version may mean anything."""
    need(version <= max(versions), f"it has version {version}: use a newer reader")
    need(version in versions, f"it has version {version}, which was never released")


# Keys (crypto.md)


def derive(context, secret, *parts):
    """A key for one purpose."""
    hasher = blake3.blake3(derive_key_context=f"comb 2026-11 v1 {context}")
    hasher.update(secret)
    for part in parts:
        hasher.update(len(part).to_bytes(8, "little") + part)
    return hasher.digest()


def decrypt(suite, key, nonce, data, associated):
    """Opens what is encrypted, if it is exactly what was."""
    need(suite in (1, 2), f"there is no suite {suite}")
    cipher = (aead.ChaCha20Poly1305 if suite == 1 else aead.AESGCM)(key)
    try:
        return cipher.decrypt(bytes(4) + nonce.to_bytes(8, "little"), bytes(data), associated)
    except (cryptography.exceptions.InvalidTag, ValueError):
        raise Refused("it does not decrypt: damaged, or of another key") from None


class ReadKey:
    """What opens packs and manifests."""

    def __init__(self, secret):
        self.secret = secret
        self.domain = derive("domain", secret)[:16]
        self.names = {FRAME_CHUNK: derive("chunk names", secret), FRAME_NODE: derive("node names", secret)}
        self.names[FRAME_PAGE] = self.names[FRAME_NODE]
        self.file_names = derive("file name hash", secret)[:16]
        # The same names again in each moment.
        self.hash_of_name = functools.lru_cache(maxsize=1 << 16)(self.hash_of_name)

    def name(self, kind, plain):
        """The name of a chunk, node or page."""
        return blake3.blake3(plain, key=self.names[kind]).digest()[: NAME_BYTES[kind]]

    def hash_of_name(self, name):
        """Where a name lies in its directory, without the number that tells equal hashes apart."""
        return max(siphash(self.file_names, name) >> 9, 1)


def siphash(key, data):
    """SipHash-2-4."""
    left, right = (int.from_bytes(key[at : at + 8], "little") for at in (0, 8))
    v0, v1, v2, v3 = left ^ 0x736F6D6570736575, right ^ 0x646F72616E646F6D, left ^ 0x6C7967656E657261, right ^ 0x7465646279746573

    def rounds(count):
        nonlocal v0, v1, v2, v3
        turn = lambda value, by: (value << by | value >> 64 - by) & U64_MAX
        for _ in range(count):
            v0, v2 = v0 + v1 & U64_MAX, v2 + v3 & U64_MAX
            v1, v3 = turn(v1, 13) ^ v0, turn(v3, 16) ^ v2
            v0, v2 = turn(v0, 32) + v3 & U64_MAX, v2 + v1 & U64_MAX
            v3, v1 = turn(v3, 21) ^ v0, turn(v1, 17) ^ v2
            v2 = turn(v2, 32)

    padded = data + bytes(7 - len(data) % 8) + bytes([len(data) & 0xFF])
    for at in range(0, len(padded), 8):
        word = int.from_bytes(padded[at : at + 8], "little")
        v3 ^= word
        rounds(2)
        v0 ^= word
    v2 ^= 0xFF
    rounds(4)
    return v0 ^ v1 ^ v2 ^ v3


class VolumeKey:
    """The seed, and what follows from it."""

    def __init__(self, text):
        lines = text.split("\n")
        if len(lines) > 1 and lines[0].startswith("comb volume key "):
            need(len(lines) == 4 and not lines[3], "a key file has three lines")
            checksum = blake3.blake3(f"{lines[0]}\n{lines[1]}\n".encode()).digest()[:16]
            need(self.base64(lines[2], 16) == checksum, "its checksum is wrong: damaged")
            need(lines[0] == "comb volume key 1", f"it is a `{lines[0]}`: use a newer reader")
            seed = self.base64(lines[1], 32)
        else:
            seed = self.base64(text.strip(), 32)
        self.volume = ed25519.Ed25519PrivateKey.from_private_bytes(seed).public_key().public_bytes_raw()
        self.read_key = ReadKey(derive("read key", seed))

    @functools.cache
    def read_key_of_parent(self, wrapped):
        """What all that a fork has is encrypted under, its manifests too."""
        return ReadKey(decrypt(1, derive("parent read key", self.read_key.secret), 0, wrapped, b""))

    @staticmethod
    def base64(text, size):
        """One key has one spelling."""
        with contextlib.suppress(ValueError):
            data = base64.b64decode(text, validate=True)
            if len(data) == size and base64.b64encode(data).decode() == text:
                return data
        raise Refused(f"it holds no {size} bytes in base64")


def is_signed(volume, data, signature):
    """Whether a volume's key signed these bytes; strict as crypto.md says (its own key is never of small order)."""
    digest = blake3.blake3(data, key=derive("manifest signature", b"")).digest()
    # The heights of the points of small order; their sign is in the highest bit.
    prime = (1 << 255) - 19
    y = int.from_bytes(signature[:32], "little") & (1 << 255) - 1
    eighth = 0x7A03AC9277FDC74EC6CC392CFA53202A0F67100D760B3CBA4FD83D3D706A17C7
    if y in (0, 1, prime - 1, eighth, prime - eighth):
        return False
    try:
        ed25519.Ed25519PublicKey.from_public_bytes(volume).verify(signature, digest)
    except cryptography.exceptions.InvalidSignature:
        return False
    return True


# Where objects lie (format.md, section 1; replication.md, section 1)


class Source:
    """A volume's folder, or a store's."""

    def __init__(self, folder, volume):
        store = folder / "v" / volume.hex()
        if (folder / "manifests").is_dir():
            self.manifests, self.packs, self.head = folder / "manifests", folder / "packs", folder / "head"
            self.seq_of = lambda name: int(name, 16)
        else:
            need(store.is_dir(), f"{folder} has neither `manifests` nor `v/{volume.hex()}`: no such volume here")
            self.manifests, self.packs, self.head = store / "m", store / "p", None
            self.seq_of = lambda name: U64_MAX - int(name, 16)

    def manifest_paths(self):
        """Of each seq, newest first."""
        names = [name for name in os.listdir(self.manifests) if re.fullmatch("[0-9a-f]{16}", name)]
        return dict(sorted(((self.seq_of(name), self.manifests / name) for name in names), reverse=True))

    def pack_ids(self):
        """What has the name of a pack."""
        return [bytes.fromhex(name) for name in os.listdir(self.packs) if re.fullmatch("[0-9a-f]{64}", name)]


def read_file(path, most):
    """All of a file that may be so long."""
    need(path.stat().st_size <= most, f"it is longer than {most} bytes")
    return path.read_bytes()


# Manifests (format.md, section 7)


@dataclasses.dataclass
class Manifest:
    """What a seal says, and the key that its tree reads with."""

    id: bytes
    read_key: ReadKey
    is_fork: bool
    has_moved: bool
    epoch: int
    seq: int
    parent: bytes
    time: int = 0
    root: tuple = ()
    height: int = 0
    next_ino: int = 0
    files: int = 0
    bytes: int = 0
    bytes_sealed: int = 0
    entries: list = ()
    pages: list = ()
    snapshot: dict = None


def open_manifest(data, key):
    """A manifest, when it is this volume's and whole."""
    need(len(data) <= MIB, "it is longer than 1 MiB")
    header = Cursor(data[:192])
    version = header.magic(b"COMBMANI")
    flags, body_bytes = header.number(2), header.number(4)
    need(header.take(32) == key.volume, "it is of another volume")
    # Before the version, so that damage is not taken for a newer format.
    need(is_signed(key.volume, data[:-64], data[-64:]), "its signature is wrong: damaged")
    known(version, MANIFEST_VERSIONS)
    need(flags in ((0, 1) if version == 2 else (2, 3)), f"it has unknown flags {flags}")
    is_fork, has_moved = bool(flags & 1), bool(flags & 2)
    need(len(data) == 192 + body_bytes + 64, "its length is not what it says")
    epoch, seq, parent, salt = header.number(8), header.number(8), header.take(32), header.take(32)
    read_key = key.read_key
    if is_fork:
        read_key = key.read_key_of_parent(header.take(48))
    else:
        header.zeros(48)
    header.take(16)  # The device that wrote it.
    body = decrypt(1, derive("manifest body", read_key.secret, salt), 0, data[192:-64], data[:192])
    manifest = Manifest(blake3.blake3(data).digest(), read_key, is_fork, has_moved, epoch, seq, parent)
    read_manifest_body(manifest, Cursor(body))
    return manifest


def read_manifest_body(manifest, body):
    """The encrypted part."""
    manifest.time = body.number(8, signed=True)
    manifest.root = (body.take(32), read_location(body))
    manifest.height = body.number(1)
    manifest.next_ino = body.varint(1 << 38)
    need(manifest.next_ino >= 16, "its next inode is a reserved one")
    manifest.files, manifest.bytes, manifest.bytes_sealed = body.varint(), body.varint(), body.varint()
    manifest.entries = [read_pack_entry(body) for _ in range(body.varint(4096))]
    manifest.pages = [[read_page_pointer(body) for _ in range(body.varint(4096))] for _ in range(body.varint(5))]
    body.take(16)  # The journal that goes on from here,
    body.varint()  # and where.
    body.take(16)  # The arbiter.
    manifest.snapshot = read_snapshot(body)
    body.end()


def read_snapshot(cursor):
    """A label, if there is one."""
    has_snapshot = cursor.number(1)
    need(has_snapshot in (0, 1), "it says neither that it is a snapshot nor that it is none")
    if not has_snapshot:
        return None
    name, message = str(uuid.UUID(bytes=cursor.take(16))), read_text(cursor, 4096)
    return {"uuid": name, "message": message, "tags": [read_text(cursor, 255) for _ in range(cursor.varint(64))]}


def read_moment(newest, seq, value):
    """The record of kind 7, as its manifest would say it; the pack table is that of the newest."""
    name, epoch, time = value.take(32), value.varint(), value.number(8, signed=True)
    files, bytes, bytes_sealed = value.varint(), value.varint(), value.varint()
    root, height, snapshot = (value.take(32), read_location(value)), value.number(1), read_snapshot(value)
    return dataclasses.replace(newest, id=name, epoch=epoch, seq=seq, parent=b"", time=time, files=files, bytes=bytes,
                               bytes_sealed=bytes_sealed, root=root, height=height, snapshot=snapshot)


def read_fate(value):
    """The record of kind 8: whether the pack may be removed."""
    fate = value.number(1)
    need(1 <= fate <= 3, f"there is no fate {fate} of a pack")
    if fate < 3:
        value.varint()
    if fate == 1:
        value.number(8, signed=True)
    return fate > 1


def read_moved(value):
    """The record of kind 10: what opens the frames of a pack, and of each part the pack it lies in and its runs."""
    suite, salt, parts, number = value.number(1), value.take(32), [], 0
    for _ in range(value.varint(80 * KIB)):
        before, number, to = number, value.varint(U32_MAX), value.varint(U32_MAX)
        need(before <= number, "the parts of what was moved are not in order")
        need(to >= 64, "what was moved lies in a header")
        runs, end = [], 64
        for _ in range(value.varint(80 * KIB)):
            gap, length = value.varint(U32_MAX), value.varint(U32_MAX)
            need(length and (gap or not runs), "a run is empty, or touches the one before")
            runs.append((end + gap, length, to))
            end, to = end + gap + length, to + length
            need(max(end, to) <= 96 * MIB, "a run ends behind its pack")
        need(runs, "a part has no run")
        parts.append((number, runs))
    need(parts, "nothing was moved")
    return suite, salt, parts


def read_text(cursor, most):
    """A length and UTF-8."""
    try:
        return cursor.bytes(most).decode()
    except UnicodeDecodeError:
        raise Refused("a text is not UTF-8") from None


def read_location(cursor):
    """Where a frame lies: number of the pack, offset, length."""
    return cursor.varint(U32_MAX), cursor.varint(U32_MAX), cursor.varint(MIB + 64)


def read_pack_entry(cursor):
    """What the table says of a pack: id, bytes, seq of its seal."""
    return cursor.take(32), cursor.varint(U32_MAX), cursor.varint()


def read_page_pointer(cursor):
    """Where a page of the table lies: its name, id of the pack, offset, length."""
    return cursor.take(32), cursor.take(32), cursor.varint(U32_MAX), cursor.varint(64 * KIB)


# Packs (format.md, section 5)


class Pack:
    """One pack, read and checked as a whole."""

    def __init__(self, path, id, read_key):
        self.path, self.read_key = path, read_key
        data = read_file(path, 96 * MIB)
        need(blake3.blake3(data).digest() == id, "its bytes are not those that its name says: damaged")
        self.size = len(data)
        header = Cursor(data[:64])
        known(header.magic(b"COMBPACK"))
        self.suite, self.kind = header.number(1), header.number(1)
        need(self.suite in (1, 2) and self.kind in (1, 2, 3), "its suite or its kind is unknown")
        header.zeros(4)
        salt = header.take(32)
        need(header.take(16) == read_key.domain, "it belongs to another read key")
        self.frame_key = derive("pack", read_key.secret, bytes([self.suite, self.kind]), salt)
        directory_key = derive("pack directory", read_key.secret, bytes([self.suite]), salt)

        need(self.size >= 64 + 32, "it is too short for a trailer")
        trailer = Cursor(decrypt(self.suite, directory_key, U64_MAX, data[-32:], b"trailer"))
        offset, length = trailer.number(4), trailer.number(4)
        trailer.zeros(8)
        need(64 <= offset and 16 <= length and offset + length + 32 == self.size, "its directory is not before its trailer")
        need(self.size == padme(self.size), "its length is not padded")
        directory = Cursor(decrypt(self.suite, directory_key, offset, data[offset : offset + length], b"directory"))
        # Kind of name, name and length of the frame at an offset.
        self.frames, at = {}, 64
        for _ in range(directory.varint(len(data))):
            kind = directory.number(1)
            need(self.kind < 3, "frames that were moved are not listed")
            need(kind in NAME_BYTES and (kind == FRAME_CHUNK) == (self.kind == 1), "a frame of this kind does not belong in it")
            frame = kind, directory.take(NAME_BYTES[kind]), directory.varint(MIB + 64)
            self.frames[at] = frame
            at += frame[2]
        directory.zeros(length - 16 - directory.at)
        need(at == offset or self.kind == 3, "its frames do not end where its directory begins")
        self.end = offset

    def frame(self, kind, name, offset, length, moved=None):
        """The plain bytes of a frame. Of one that was moved: suite and salt of its own pack, and its offset there."""
        suite, key, nonce = self.suite, self.frame_key, offset
        if moved:
            suite, salt, nonce = moved
            key = derive("pack", self.read_key.secret, bytes([suite, 1]), salt)
            need(self.kind == 3 and 64 <= offset and offset + length <= self.end, "it has no frame of another pack there")
        else:
            need(self.frames.get(offset) == (kind, name, length), "it has no such frame there")
        with open(self.path, "rb") as file:
            file.seek(offset)
            data = file.read(length)
        frame = Cursor(decrypt(suite, key, nonce, data, self.read_key.domain + bytes([kind]) + name))
        compressed = frame.number(1)
        need(compressed in (0, 1), "it is stored in an unknown way")
        most = FRAME_BYTES_MAX[kind]
        plain = unzip(frame.varint(most), frame.rest()) if compressed else frame.rest()
        need(len(plain) <= most, "it is longer than it may be")
        need(self.read_key.name(kind, plain) == name, "its bytes are not those that its name says")
        return plain


def padme(length):
    """The next length that shows only the first O(log log n) bits of itself."""
    exponent = length.bit_length() - 1
    mask = (1 << exponent - exponent.bit_length()) - 1
    return length + mask & ~mask


def unzip(length, data):
    """One zstd frame of so many bytes."""
    try:
        need(zstandard.frame_content_size(data) in (-1, length), "its plain length is not what it says")
        plain = zstandard.ZstdDecompressor().decompress(data, max_output_size=length, allow_extra_data=False)
    except zstandard.ZstdError as error:
        raise Refused(f"it does not decompress: {error}") from None
    need(len(plain) == length, "its plain length is not what it says")
    return plain


# The tree (format.md, section 4)

KINDS = [None, "file", "directory", "symlink", "fifo", "character device", "block device", "socket"]
FILE, DIRECTORY, SYMLINK, FIFO, CHARACTER_DEVICE, BLOCK_DEVICE, SOCKET = range(1, 8)
ROOT = 1


@dataclasses.dataclass
class Inode:
    """All that the tree says of an inode."""

    kind: int
    mode: int
    uid: int
    gid: int
    nlink: int
    size: int
    allocated: int
    rdev: int
    mtime: int
    atime: int
    ctime: int
    btime: int
    names: dict = dataclasses.field(default_factory=dict)  # name → ino, kind
    attributes: dict = dataclasses.field(default_factory=dict)
    inline: bytes = None
    extents: list = dataclasses.field(default_factory=list)  # offset, length, skip, chunk id, location


def read_inode(value):
    """The record of kind 1."""
    kind = value.number(1)
    need(1 <= kind <= 7, f"there is no kind {kind} of file")
    mode = value.varint(0o7777)
    uid, gid, nlink, size, allocated, rdev = (value.varint(most) for most in (U32_MAX, U32_MAX, U32_MAX, I64_MAX, U64_MAX, U32_MAX))
    mtime = value.number(8, signed=True)
    # Distances wrap around, so that any two times have one.
    atime, ctime, btime = ((mtime + value.zigzag() + I64_MAX + 1 & U64_MAX) - I64_MAX - 1 for _ in range(3))
    value.varint()  # Its parent,
    value.number(8)  # and where that has it: not needed by who begins at the root.
    return Inode(kind, mode, uid, gid, nlink, size, allocated, rdev, mtime, atime, ctime, btime)


class Volume:
    """Manifests and packs of one volume."""

    def __init__(self, folder, key):
        self.key, self.source = key, Source(folder, key.volume)
        self.damage, self.newest_seq = [], 0
        self.moments = {}  # seq → manifest, newest first
        for seq, path in self.source.manifest_paths().items():
            self.try_manifest(path, seq)
        if self.source.head:
            self.try_manifest(self.source.head)
        self.moments = dict(sorted(self.moments.items(), reverse=True))
        need(self.moments, "there is no manifest that can be read; " + "; ".join(self.damage))
        self.check_chain()
        self.removed, self.moved = set(), {}
        try:
            with reading("the moments in the newest tree"):
                self.read_ledger()
        except Refused as refused:
            # Manifests stand in for the records.
            self.damage.append(str(refused))

    def try_manifest(self, path, seq=None):
        """A damaged one does not stop the others from being read. `head` is the newest, and stands in for it."""
        try:
            with reading(path):
                manifest = open_manifest(read_file(path, MIB), self.key)
                need(seq in (None, manifest.seq), f"it is of seq {manifest.seq}")
                same = self.moments.setdefault(manifest.seq, manifest)
                need(same.id == manifest.id, "it is not the manifest of that seq")
                need(manifest.seq == max(self.moments) or seq, "it is not the newest manifest")
        except Refused as refused:
            self.damage.append(str(refused))

    def read_ledger(self):
        """Which moments are kept, and which packs are gone: format.md, sections 8 and 9."""
        newest = next(iter(self.moments.values()))
        kept = {newest.seq: newest}
        for (ino, kind, sub), value in Moment(self, newest).records(*newest.root, newest.height):
            if ino:
                break
            value = Cursor(value)
            if kind == 7:
                record, here = read_moment(newest, sub, value), self.moments.get(sub)
                need(sub < newest.seq, f"moment {sub} is not before the newest")
                if here and here.id != record.id:
                    self.damage.append(f"manifest {sub} is not the one that its record names")
                kept[sub] = record
            elif kind == 8 and read_fate(value):
                self.removed.add(sub)
            elif kind == 9:
                need(1 <= len(value.data) <= 4096, "a policy is empty or too long")
                value.rest().decode()
            elif kind == 10:
                need(newest.has_moved, "something was moved, and the manifest says that nothing was")
                self.moved[sub] = read_moved(value)
            if kind in (7, 8, 9, 10):
                value.end()
        self.moments = dict(sorted(kept.items(), reverse=True))
        self.newest_seq = newest.seq

    def place(self, number, offset, length):
        """The pack in which a frame lies, and where; and what opens it, if it was moved: format.md, section 9."""
        suite, salt, parts = self.moved.get(number, (0, b"", []))
        for pack, runs in reversed(parts):
            for begin, size, to in runs:
                if begin <= offset and offset + length <= begin + size:
                    return pack, to + offset - begin, (suite, salt, offset)
        return number, offset, None

    def check_chain(self):
        """Each manifest names the one before."""
        for seq, manifest in self.moments.items():
            before = self.moments.get(seq - 1)
            if before:
                follows = manifest.parent == before.id and manifest.epoch >= before.epoch
            else:
                # Old ones may have been dropped with their moments.
                follows = True
            if not follows:
                self.damage.append(f"manifest {seq} does not follow manifest {seq - 1}, or that is missing")
        paths = self.source.manifest_paths()
        self.damage += [f"manifest {seq} is missing, and `head` stands in for it" for seq in self.moments if seq not in paths]

    def find(self, moment):
        """The manifest of a seq, a tag, a uuid; of the newest moment."""
        for seq, manifest in self.moments.items():
            snapshot = manifest.snapshot or {"tags": [], "uuid": ""}
            if moment in (None, str(seq)) or moment in snapshot["tags"] or len(moment) >= 4 and snapshot["uuid"].startswith(moment):
                return manifest
        raise Refused(f"there is no moment {moment}")

    @functools.cache
    def pack(self, id, read_key):
        """One pack."""
        with reading(f"pack {id.hex()}"):
            return Pack(self.source.packs / id.hex(), id, read_key)

    # A chunk may lie in many places of a file, one after the other.
    @functools.lru_cache(maxsize=64)
    def frame(self, read_key, pack_id, kind, name, offset, length, moved=None):
        """One frame of a pack."""
        pack = self.pack(pack_id, read_key)
        with reading(f"pack {pack_id.hex()}, frame at {offset}"):
            return pack.frame(kind, name, offset, length, moved)


class Moment:
    """What a manifest leads to."""

    def __init__(self, volume, manifest):
        self.volume, self.manifest, self.read_key = volume, manifest, manifest.read_key
        # By number; format.md, section 6.
        self.packs = []
        for level in reversed(range(len(manifest.pages))):
            for pointer in manifest.pages[level]:
                self.packs += self.page(level, pointer)
        self.packs += manifest.entries
        seqs = [seq for _, _, seq in self.packs]
        # A fork has packs of its parent, with their seqs.
        need(manifest.is_fork or seqs == sorted(seqs) and max(seqs) <= max(manifest.seq, volume.newest_seq), "the pack table is not in the order of the seals")

    def page(self, level, pointer):
        """The entries of a full page and of all below it."""
        name, pack_id, offset, length = pointer
        page = Cursor(self.volume.frame(self.read_key, pack_id, FRAME_PAGE, name, offset, length))
        need(page.number(1) == min(level, 1), "a page of the pack table has the wrong level")
        if level == 0:
            entries = [read_pack_entry(page) for _ in range(64)]
        else:
            entries = [entry for below in [read_page_pointer(page) for _ in range(64)] for entry in self.page(level - 1, below)]
        page.end()
        return entries

    def frame(self, kind, name, location):
        """What lies at a location."""
        number, offset, length = location
        moved = None
        if kind == FRAME_CHUNK:
            number, offset, moved = self.volume.place(number, offset, length)
        need(number < len(self.packs), f"there is no pack {number}")
        id, size, _ = self.packs[number]
        plain = self.volume.frame(self.read_key, id, kind, name, offset, length, moved)
        need(self.volume.pack(id, self.read_key).size == size, f"pack {id.hex()} has not the length that the table says")
        return plain

    def records(self, name, location, level, first=None):
        """Key and value of each record below a node, in order."""
        node = Cursor(self.frame(FRAME_NODE, name, location))
        need(node.number(1) == level, "a node has the wrong level")
        need(level <= 16, "a node has a level above 16")
        key = (0, 0, 0)
        for number in range(node.varint(128 * KIB)):
            before, distance, kind, sub = key, node.varint(), node.number(1), node.varint()
            key = (key[0] + distance, kind, sub + key[2] if (distance, kind) == (0, key[1]) else sub)
            need(before < key and key[0] < 1 << 38 and key[2] <= U64_MAX, "the keys of a node do not ascend")
            need(number or first in (None, key), "a branch's key is not the first of its child")
            if level:
                yield from self.records(node.take(32), read_location(node), level - 1, key)
            else:
                yield key, node.bytes(80 * KIB)
        need(key[1], "a node is empty")
        node.end()

    def inodes(self):
        """All inodes, with all that belongs to them."""
        inodes, orphans, before = {}, set(), (0, 0, 0)
        for key, value in self.records(*self.manifest.root, self.manifest.height):
            with reading(f"record {key}"):
                need(before < key, "the keys of the tree do not ascend")
                before = key
                self.read_record(inodes, orphans, *key, Cursor(value))
        check_names(inodes, orphans)
        return inodes

    def read_record(self, inodes, orphans, ino, kind, sub, value):
        """One record of the tree."""
        if (ino, kind) == (0, 6):
            orphans.add(sub)
        elif ino == 0 and kind in (7, 8, 9, 10):
            value.rest()  # The volume's own; of the newest tree it was read before.
        elif kind == 1:
            need(sub == 0 and (ino == ROOT or 16 <= ino < self.manifest.next_ino), "there can be no such inode")
            inodes[ino] = read_inode(value)
        else:
            inode = inodes.get(ino)
            need(inode, "it belongs to no inode")
            if kind == 2:
                entry = value.varint(), value.number(1)
                need(inode.kind == DIRECTORY, "only a directory has names")
                self.add_name(inode.names, sub, value.rest(), entry)
            elif kind == 3:
                name = value.take(value.number(1))
                self.add_name(inode.attributes, sub, name, value.take(min(len(value.data) - value.at, 65536)))
            elif kind == 4:
                need(sub == 0 and inode.kind in (FILE, SYMLINK), "only a file or symbolic link has bytes")
                need(len(value.data) <= (4095 if inode.kind == SYMLINK else 2048), "it is too long to be inline")
                inode.inline = value.rest()
            elif kind == 5:
                extent = sub, value.varint(MIB), value.varint(MIB), value.take(16), read_location(value)
                need(inode.kind == FILE, "only a file has extents")
                need(0 < extent[1] and extent[1] + extent[2] <= MIB, "an extent has an impossible length")
                end = inode.extents[-1][0] + inode.extents[-1][1] if inode.extents else 0
                need(end <= sub, "extents overlap")
                need(sub + extent[1] <= inode.size, "an extent ends behind its file")
                inode.extents.append(extent)
            else:
                raise Refused(f"there is no kind {kind} of record")
        value.end()

    def add_name(self, names, sub, name, value):
        """A name of a directory or an attribute."""
        need(1 <= len(name) <= 255 and b"\0" not in name, "a name is empty, too long, or has a NUL")
        need(sub >> 8 == self.read_key.hash_of_name(name), "a name is not where its hash says")
        need(name not in names, "a name is there twice")
        names[name] = value

    def pieces(self, inode):
        """The runs of a file that are no holes: offset and bytes."""
        if inode.inline is not None:
            yield 0, inode.inline
        for offset, length, skip, id, location in inode.extents:
            chunk = self.frame(FRAME_CHUNK, id, location)
            need(skip + length <= len(chunk), "an extent ends behind its chunk")
            yield offset, chunk[skip : skip + length]


def check_names(inodes, orphans):
    """Each name leads to an inode, each inode has as many names as it says."""
    count = dict.fromkeys(inodes, 0)
    for ino, inode in inodes.items():
        need(inode.inline is None or not inode.extents, f"inode {ino} has extents and is inline")
        need(len(inode.inline or b"") in ((inode.size,) if inode.kind == SYMLINK else range(inode.size + 1)),
             f"inode {ino} has more bytes than it says")
        for name, (child, kind) in inode.names.items():
            need(name not in (b".", b"..") and b"/" not in name, f"inode {ino} has an impossible name {name}")
            need(child in inodes and inodes[child].kind == kind, f"inode {ino} has a name {name} of a file that is not there")
            count[child] += 1
    need(ROOT in inodes and inodes[ROOT].kind == DIRECTORY and count[ROOT] == 0, "there is no root")
    for ino, inode in inodes.items():
        if inode.kind == DIRECTORY:
            need(count[ino] == (ino != ROOT and ino not in orphans), f"directory {ino} has {count[ino]} names")
        else:
            need(count[ino] == inode.nlink, f"inode {ino} has {count[ino]} names and says {inode.nlink}")
            need(bool(count[ino]) != (ino in orphans), f"inode {ino} has no name, or is an orphan with one")


# What a person wants


def walk(inodes):
    """Path and inode number of all that has a name, each directory before what it holds."""
    todo = [(b".", ROOT)]
    while todo:
        path, ino = todo.pop()
        yield path, ino
        names = sorted(inodes[ino].names.items(), reverse=True)
        todo += [(name if path == b"." else path + b"/" + name, child) for name, (child, _) in names]


def moments(volume):
    """A line for each moment."""
    for seq, manifest in volume.moments.items():
        line = {"seq": seq, "id": manifest.id.hex(), "epoch": manifest.epoch, "time": manifest.time, "files": manifest.files,
                "bytes": manifest.bytes, "snapshot": manifest.snapshot}
        print(json.dumps(line))


def listing(moment):
    """A line for each path; paths and attributes that are not UTF-8 have their bytes as Python's surrogate escapes."""
    inodes = moment.inodes()
    for path, ino in walk(inodes):
        inode = inodes[ino]
        line = {"path": os.fsdecode(path), "ino": ino, "kind": KINDS[inode.kind], "mode": f"{inode.mode:04o}"}
        line |= {field: getattr(inode, field) for field in "uid gid nlink size rdev mtime atime ctime btime".split()}
        line["attributes"] = {os.fsdecode(name): value.hex() for name, value in inode.attributes.items()}
        if inode.kind == SYMLINK:
            line["target"] = os.fsdecode(inode.inline)
        elif inode.kind == FILE:
            hasher, end = blake3.blake3(), 0
            with reading(os.fsdecode(path)):
                for offset, piece in [*moment.pieces(inode), (inode.size, b"")]:
                    for hole in range(end, offset, MIB):
                        hasher.update(bytes(min(MIB, offset - hole)))
                    hasher.update(piece)
                    end = offset + len(piece)
            line["blake3"] = hasher.hexdigest()
        print(json.dumps(line))


def restore(moment, target):
    """The tree as a new folder; returns what could not be made."""
    inodes, first, left_out = moment.inodes(), {}, []
    with reading(target):
        os.mkdir(target, 0o700)
        os.chdir(target)
    for path, ino in walk(inodes):
        try:
            if ino in first:
                os.link(first[ino], path, follow_symlinks=False)
            else:
                make(moment, inodes[ino], path)
                first[ino] = path
        except (OSError, Refused) as error:
            left_out.append(f"{os.fsdecode(path)}: {error}")
            # Half a file would look like a whole one.
            if inodes[ino].kind == FILE and ino not in first:
                with contextlib.suppress(OSError):
                    os.unlink(path)
    # Last, and what lies inside first, since each name that is made changes its directory.
    for ino, path in reversed(first.items()):
        left_out += [f"{os.fsdecode(path)}: {error}" for error in dress(inodes[ino], path)]
    return left_out


def make(moment, inode, path):
    """A file of any kind, with its content."""
    if inode.kind == DIRECTORY:
        if path != b".":
            os.mkdir(path, 0o700)
    elif inode.kind == SYMLINK:
        os.symlink(inode.inline, path)
    elif inode.kind == FILE:
        with open(path, "xb") as file:
            for offset, piece in moment.pieces(inode):
                file.seek(offset)
                file.write(piece)
            file.truncate(inode.size)
    else:
        kind = {FIFO: stat.S_IFIFO, SOCKET: stat.S_IFSOCK, CHARACTER_DEVICE: stat.S_IFCHR, BLOCK_DEVICE: stat.S_IFBLK}
        os.mknod(path, kind[inode.kind] | 0o600, inode.rdev)


def dress(inode, path):
    """Owner, attributes, mode and times; yields what did not work."""
    steps = [lambda: os.chown(path, inode.uid, inode.gid, follow_symlinks=False)] if os.geteuid() == 0 else []
    for name, value in inode.attributes.items():
        steps.append(lambda name=name, value=value: os.setxattr(path, name, value, follow_symlinks=False))
    if inode.kind != SYMLINK:
        steps.append(lambda: os.chmod(path, inode.mode))
    steps.append(lambda: os.utime(path, ns=(inode.atime, inode.mtime), follow_symlinks=False))
    for step in steps:
        try:
            step()
        except OSError as error:
            yield error


def check(volume):
    """All moments with all that they lead to; returns what is damaged."""
    damage, done = list(volume.damage), set()

    def attempt(what, action):
        try:
            with reading(what):
                return action()
        except Refused as refused:
            damage.append(str(refused))

    for manifest in volume.moments.values():
        moment = attempt(f"moment {manifest.seq}", lambda: Moment(volume, manifest))
        if moment is None:
            continue
        for number, (id, _, _) in enumerate(moment.packs):
            if id not in done and number not in volume.removed:
                attempt(f"moment {manifest.seq}", lambda: volume.pack(id, manifest.read_key))
                done.add(id)
        inodes = attempt(f"moment {manifest.seq}", moment.inodes) or {}
        for path, ino in walk(inodes) if inodes else ():
            whole = (ino, repr(inodes[ino].extents))
            if whole not in done:
                attempt(f"moment {manifest.seq}, {os.fsdecode(path)}", lambda: sum(len(piece) for _, piece in moment.pieces(inodes[ino])))
                done.add(whole)
    for id in volume.source.pack_ids():
        if id not in done:
            attempt("no moment", lambda: volume.pack(id, next(iter(volume.moments.values())).read_key))
    return list(dict.fromkeys(damage))


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("command", choices=["moments", "list", "restore", "check"])
    parser.add_argument("source", type=pathlib.Path)
    parser.add_argument("to", type=pathlib.Path, nargs="?")
    parser.add_argument("--at", metavar="MOMENT")
    parser.add_argument("--key", type=pathlib.Path, help="the key file, or a file with a bare seed [default: SOURCE/key]")
    options = parser.parse_intermixed_args()
    if (options.command == "restore") != bool(options.to):
        parser.error("`restore`, and nothing else, needs TO")
    # `restore` changes the current folder.
    options.source = options.source.resolve()
    key_path = options.key or options.source / "key"
    wrong = []
    try:
        with reading(key_path):
            key = VolumeKey(read_file(key_path, KIB).decode("ascii", "replace"))
        with reading(options.source):
            volume = Volume(options.source, key)
        wrong = volume.damage
        if options.command == "moments":
            moments(volume)
        elif options.command == "check":
            wrong = check(volume)
        else:
            moment = Moment(volume, volume.find(options.at))
            if options.command == "list":
                listing(moment)
            else:
                wrong = wrong + restore(moment, options.to)
    except Refused as refused:
        wrong = [*wrong, str(refused)]
    for sentence in wrong:
        print(f"error: {sentence}", file=sys.stderr)
    sys.exit(1 if wrong else 0)


if __name__ == "__main__":
    main()
