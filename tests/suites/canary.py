"""Looks for what must not be anywhere: secrets, names and contents, in every form that they could take (`orchestrator/docs/security.md`, section 14)."""

import base64
import hashlib
import os
import pathlib
import re
import socket
import struct
import subprocess
import threading
import urllib.parse

import machines
import parties
import stage

# Of `tests/suites/reader`: it opens a key ring by the documents alone.
READER = stage.ROOT / "tests/reader"
PYTHON = stage.TOOLS / "reader/bin/python3"
BRIDGE = "combtest0"
ETH_P_ALL, ETH_P_IP, TCP = 3, 0x0800, 6
SAMPLE_SECONDS = 0.05
# A container of an app has what its compose file gives it, and so have the program that makes it and compose, which reads the file.
CONTAINER = re.compile(rb"/[0-9a-f]{64}\n")
GIVEN = (b"runc", b"docker-compose")


def forms(secret):
    """All that bytes could be written as, by name."""
    found = {"plain": secret, "hex": secret.hex().encode(), "HEX": secret.hex().upper().encode()}
    for name, encode in (("base64", base64.b64encode), ("base64url", base64.urlsafe_b64encode)):
        for before in range(3):
            # Wherever it begins in what was encoded: the letters that no other byte takes part in.
            letters = encode(bytes(before) + secret)
            found[f"{name}+{before}"] = letters[-(-before * 8 // 6) : (before + len(secret)) * 8 // 6]
    text = secret.decode("latin-1")
    found |= {"utf-16-le": text.encode("utf-16-le"), "utf-16-be": text.encode("utf-16-be")}
    found["percent"] = urllib.parse.quote(secret, safe="").encode()
    found |= {"%xx": "".join(f"%{byte:02x}" for byte in secret).encode(), "%XX": "".join(f"%{byte:02X}" for byte in secret).encode()}
    return found


class Search:
    """What is looked for, by name."""

    def __init__(self, secrets):
        for name, secret in secrets.items():
            stage.expect(len(secret) >= 12, f"the canary {name} is so short that it could be anywhere: {len(secret)} bytes")
        self.forms = {(name, form): text for name, secret in secrets.items() for form, text in forms(secret).items()}

    def within(self, data):
        """Which of them are in there."""
        return {key for key, text in self.forms.items() if text in data}

    def below(self, *places):
        """Which are in files, their names and attributes: `(secret, form)` → a place. Also how many bytes were looked at."""
        found, size = {}, 0
        for file in files(*places):
            data = b"\n".join([str(file).encode(), *attributes(file), file.read_bytes()])
            size += len(data)
            found |= {key: file for key in self.within(data)}
        return found, size

    def proves_itself(self, folder):
        """Each form of each is found where it stands."""
        for number, (key, text) in enumerate(self.forms.items()):
            (folder / str(number)).write_bytes(b"before" + text + b"behind")
            found, _ = self.below(folder / str(number))
            stage.expect(key in found, f"the search does not find {key[0]} as {key[1]}: it would prove nothing")


def files(*places):
    """Plain files there and below."""
    for place in places:
        if place.is_dir():
            yield from (file for file in sorted(place.rglob("*")) if file.is_file() and not file.is_symlink())
        elif place.is_file():
            yield place


def attributes(file):
    for name in os.listxattr(file):
        yield name.encode()
        yield os.getxattr(file, name)


class Processes(threading.Thread):
    """Command lines and environments of all processes, sampled until it is ended; each is kept once."""

    def __init__(self):
        super().__init__(daemon=True)
        self.seen, self.kept, self.end = set(), [], threading.Event()
        self.start()

    def run(self):
        while not self.end.wait(SAMPLE_SECONDS):
            for process in pathlib.Path("/proc").glob("[0-9]*"):
                try:
                    words = (process / "cmdline").read_bytes()
                    data = words + b"\n" + (process / "environ").read_bytes()
                    mark = hashlib.blake2b(data, digest_size=16).digest()
                    if mark in self.seen or CONTAINER.search((process / "cgroup").read_bytes()) or is_given(words):
                        continue
                except OSError:
                    continue  # It ended meanwhile.
                self.seen.add(mark)
                self.kept.append(data)


def is_given(words):
    """Whether a process is one of those that get an app's variables."""
    words = words.split(b"\0")
    name = words[0].rsplit(b"/", 1)[-1]
    return name in GIVEN or (name == b"docker" and b"compose" in words)


class Wire(threading.Thread):
    """What crosses between the machines and this one; what each side of a connection said is put together."""

    def __init__(self):
        super().__init__(daemon=True)
        self.said, self.end = {}, threading.Event()
        self.socket = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(ETH_P_ALL))
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 64 << 20)
        self.socket.bind((BRIDGE, 0))
        self.socket.settimeout(0.5)
        self.start()

    def run(self):
        while not self.end.is_set():
            try:
                frame = self.socket.recv(1 << 17)
            except TimeoutError:
                continue
            except OSError:
                return  # The last machine is gone, and the bridge with it.
            flow, payload = parts(frame)
            self.said.setdefault(flow, bytearray()).extend(payload)


def parts(frame):
    """Whose words they are, and the words."""
    if len(frame) < 54 or struct.unpack_from("!H", frame, 12)[0] != ETH_P_IP or frame[23] != TCP:
        return None, frame
    header, total = 14 + (frame[14] & 15) * 4, 14 + struct.unpack_from("!H", frame, 16)[0]
    data = header + (frame[header + 12] >> 4) * 4
    # A large frame that the kernel did not cut yet has no length.
    return frame[26:34] + frame[header : header + 4], frame[data : total if total > data else None]


class Watch:
    """Samples processes and the wire from now on, and shows that it would see something."""

    def __init__(self, world):
        self.processes, self.wire, self.world = Processes(), Wire(), world

    def prove(self):
        """Something is said by an argument, by an environment and over the wire; all three must be seen."""
        secrets = {name: f"decoy {name} {os.urandom(8).hex()}".encode() for name in ("argument", "environment", "wire")}
        words = ["sleep", "2"]
        program = ["bash", "-c", 'exec -a "$(cat)" sleep 1'], ["env", f"DECOY={secrets['environment'].decode()}", *words]
        for command, said in zip(program, (secrets["argument"], b"")):
            subprocess.run(command, input=said, check=True)
        with socket.create_server((self.world.hive.host, 0)) as server:
            talk = "import socket, sys; socket.create_connection((sys.argv[1], int(sys.argv[2]))).sendall(sys.stdin.buffer.read())"
            words = self.world.one.machine.words("python3", "-c", talk, self.world.hive.host, str(server.getsockname()[1]))
            subprocess.run(words, input=secrets["wire"], check=True)
            server.accept()[0].close()
        return Search(secrets)

    def ends(self, folder):
        """Ends it; returns the folder with all that was seen."""
        decoy = self.prove()
        for one in (self.processes, self.wire):
            one.end.set()
            one.join()
        (folder / "processes").write_bytes(b"\n".join(self.processes.kept))
        (folder / "wire").mkdir()
        for number, said in enumerate(self.wire.said.values()):
            (folder / "wire" / str(number)).write_bytes(said)
        for names, place in (({"argument", "environment"}, "processes"), ({"wire"}, "wire")):
            seen = {name for (name, form), _ in decoy.below(folder / place)[0].items() if form == "plain"}
            stage.expect(seen >= names, f"of {names} only {seen} was seen in what was sampled: it would prove nothing")
        return folder


def ring_key(state):
    """The key of a key ring, which `ring.key` and `device` open together (`fs/docs/crypto.md`)."""
    stage.expect(PYTHON.exists(), "the packages of tests/reader are not installed; `tests/suites/run --short reader` does it")
    program = (
        "import sys, pathlib; sys.path.insert(0, sys.argv[1]); import reader\n"
        "state = pathlib.Path(sys.argv[2]); ring = (state / 'ring.key').read_bytes()\n"
        "key = reader.derive('ring key by device', (state / 'device').read_bytes(), ring[16:32], ring[32:64])\n"
        "print(reader.decrypt(1, key, 0, ring[64:], b'').hex())"
    )
    return bytes.fromhex(stage.run(PYTHON, "-c", program, READER, state).strip())


def volume_key(state, volume):
    """The seed of a volume's key."""
    lines = (state / "volumes" / volume / "key").read_text().splitlines()
    return base64.b64decode(lines[1])


COMPOSE = """\
x-comb:
  options:
    - {name: WORD, type: text}
    - {name: FILE, type: text}
    - {name: TEXT, type: text}
    - {name: MADE, type: secret}
services:
  keeper:
    image: nginx:1.22
    environment: {WORD: "${WORD}", FILE: "${FILE}", TEXT: "${TEXT}", MADE: "${MADE}"}
    command: ["sh", "-c", 'printf %s "$$TEXT" > "/data/$$FILE"; echo "$$WORD $$TEXT"; exec sleep infinity']
    stop_grace_period: 1s
    volumes: ["data:/data"]
volumes: {data: }
"""


def play(world, watch):
    """An app with secrets of its own, moved and backed up; then they are looked for everywhere."""
    folder = world.folder / "canary"
    (folder / "app").mkdir(parents=True)
    (folder / "app/compose.yaml").write_text(COMPOSE)
    said = {name: f"canary+{name} {os.urandom(12).hex()}" for name in ("word", "file", "text", "message")}
    values = parties.secret_file(world.folder / "secrets/values", "".join(f"{name.upper()}={said[name]}\n" for name in ("word", "file", "text")))
    world.person.add(folder / "app", "--name", "keeper", "--device", "one", "--set-from", values)
    world.wait_running("keeper", world.one)
    words = ("app", "snapshot", "keeper", "--message-stdin", "--passphrase-file", world.person.passphrase)
    world.person.json(*words, given=said["message"])
    world.person.json("app", "move", "keeper", "--to", "two")
    world.wait_running("keeper", world.two)
    logs = world.person.comb("app", "logs", "keeper", "--passphrase-file", world.person.passphrase)
    stage.expect(said["word"] in logs, "the app's log does not have what it wrote: the search would prove nothing")
    given = dict(line.split("=", 1) for line in world.inside(world.two, "keeper", "keeper", "env").splitlines() if "=" in line)
    volume = world.volume("keeper", "data")
    kept = [one["snapshot"]["message"] for one in world.two.json("log", volume, "--snapshots")]
    stage.expect(said["message"] in kept, f"what was said of the moment is not in the volume, but {kept}")
    identity = next(one for one in world.two.json("volume", "list") if one["name"] == volume)["public_key"]
    secrets = {
        **{name: text.encode() for name, text in said.items()},
        "made": given["MADE"].encode(),
        "passphrase": parties.PASSPHRASE.encode(),
        "volume key": volume_key(world.two.state, identity),
        "ring key": ring_key(world.two.state),
    }
    search = Search(secrets)
    (folder / "proof").mkdir()
    search.proves_itself(folder / "proof")

    backup, restored, dump = folder / "backup", folder / "restored", folder / "dump"
    world.hive.comb("hive", "backup", backup)
    # A backup is compressed: what is in it is what comes out of it.
    restored.mkdir()
    world.hive.comb("hive", "restore", backup, "--db", f"sqlite:{restored}/hive.db")
    dump.write_bytes(world.hive.dump())
    (folder / "seen").mkdir()
    places = {
        "the hive's database, history and log": [world.hive.folder],
        "its dump": [dump],
        "its backup, as it is and restored": [backup, restored],
        "devices' logs and histories": [one for device in world.devices for one in device.logs()],
        "the store": [world.store.data()],
        "processes and the wire": [watch.ends(folder / "seen")],
    }
    told = []
    for name, where in places.items():
        found, size = search.below(*where)
        stage.expect(not found, f"in {name}: " + "; ".join(f"{secret} as {form} in {file}" for (secret, form), file in found.items()))
        stage.expect(size > 0, f"there is nothing in {name}")
        told.append(f"{name} ({size >> 10} KiB)")
    world.note(f"canary: {len(secrets)} secrets in {len(search.forms)} forms are not in " + ", ".join(told))
