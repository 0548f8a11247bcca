"""A hive, devices and the person who orders, as real processes. All that knows how `comb` is called for them stands here."""

import contextlib
import json
import os
import pathlib
import re
import secrets
import signal
import socket
import sqlite3
import subprocess
import threading
import time

import machines
import stage

PASSPHRASE = f"the bees fly at {secrets.token_hex(6)} o'clock"
PASSWORD = f"not the passphrase {secrets.token_hex(6)}"
S3_KEYS = "[default]\naws_access_key_id = comb-test\naws_secret_access_key = comb-test-secret\n"


def history_checker():
    """The program that holds histories against the invariants; as the crates' tests build it, so that nothing is built twice."""
    words = ["cargo", "build", "--quiet", "--workspace", "--locked", "--bin", "comb-history"]
    stage.run(*words, cwd=stage.ROOT, timeout=1200)
    return pathlib.Path(os.environ.get("CARGO_TARGET_DIR", stage.ROOT / "target")) / "debug/comb-history"


def boottime_ms():
    """The one clock of all parties."""
    return time.clock_gettime_ns(time.CLOCK_BOOTTIME) // 1_000_000


def free_port(host):
    with socket.socket() as one:
        one.bind((host, 0))
        return one.getsockname()[1]


def secret_file(path, text):
    """A file that only its owner may read."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w", encoding="utf-8") as file:
        file.write(text)
    return path


class Store:
    """versitygw where devices reach it."""

    def __init__(self, host):
        self.host, self.port = host, free_port(host)
        self.script("start")
        self.url = f"s3://comb-test?endpoint=http://{host}:{self.port}&region=us-east-1"

    def script(self, action):
        return stage.run(
            stage.ROOT / "tests/servers/s3", action, "versitygw", self.port, env={**os.environ, "COMB_TEST_BIND": self.host}, timeout=1200
        )

    def stop(self):
        self.script("stop")

    def data(self):
        """Where its objects lie."""
        place = pathlib.Path(os.environ.get("TMPDIR", "/tmp")) / f"comb-test-servers-{os.getuid()}"
        return place / f"s3-versitygw-{self.port}/data"


class Postgres:
    """A PostgreSQL for the hive."""

    def __init__(self):
        self.port = free_port("127.0.0.1")
        self.script("install")
        self.url = self.script("start").split()[-1]

    def script(self, action):
        return stage.run(stage.ROOT / "tests/servers/postgres", action, self.port, timeout=600)

    def stop(self):
        self.script("stop")


class Hive:
    """`comb hive run`, on SQLite where nothing else is said."""

    def __init__(self, folder, host, *more, db=None):
        self.folder, self.host, self.port, self.more = folder / "hive", host, free_port(host), more
        self.folder.mkdir()
        self.db, self.log = db or f"sqlite:{self.folder}/hive.db", self.folder / "log"
        self.url, self.process = f"http://{host}:{self.port}", None

    def comb(self, *words, **more):
        return stage.run(stage.Comb.binary(), "--state", self.folder, *words, **more)

    def start(self):
        words = ["hive", "run", "--db", self.db, "--listen", f"{self.host}:{self.port}", *self.more]
        self.process = stage.start(stage.Comb.binary(), "--state", self.folder, *words, log=self.log)
        stage.wait_until(lambda: machines.answers(f"{self.url}/healthz") or self.process.poll() is not None, "the hive's start")
        stage.expect(self.process.poll() is None, f"the hive ended: {self.log.read_text()[-2000:]}")

    def setup_code(self):
        """Printed once."""
        found = re.search(r"^setup code (\S+)$", self.log.read_text(), re.MULTILINE)
        stage.expect(found, f"the hive printed no setup code: {self.log.read_text()}")
        return found.group(1)

    def kill(self):
        stage.end(self.process, signal.SIGKILL)

    def history(self):
        return self.folder / "history.jsonl"

    def dump(self):
        """All of the database as text."""
        with contextlib.closing(sqlite3.connect(f"file:{self.folder}/hive.db?mode=ro", uri=True)) as database:
            return "\n".join(database.iterdump()).encode()


class Device:
    """`comb device run` on a machine of its own."""

    def __init__(self, folder, name):
        self.name, self.machine = name, machines.Machine(name)
        self.state = folder / name / "state"
        self.state.mkdir(parents=True)
        home = folder / name / "home"
        home.mkdir()
        self.log, self.process, self.deaths = folder / name / "log", None, []
        plain = {key: value for key, value in os.environ.items() if not key.startswith("AWS_")}
        self.env = {**plain, "HOME": str(home), "DOCKER_HOST": self.machine.docker_host, "AWS_EC2_METADATA_DISABLED": "true"}
        self.id = None

    def words(self, *words):
        return self.machine.words(stage.Comb.binary(), "--state", self.state, *words)

    def comb(self, *words, **more):
        return stage.run(*self.words(*words), env=self.env, **more)

    def json(self, *words, timeout=300):
        """What it answers as JSON; what it says beside is kept for a failure."""
        done = subprocess.run(
            self.words(*words, "--json"), stdin=subprocess.DEVNULL, capture_output=True, text=True, env=self.env, timeout=timeout, check=False
        )
        stage.expect(done.returncode == 0, f"{self.name}: comb {' '.join(map(str, words))} ended with {done.returncode}: {done.stderr}")
        return json.loads(done.stdout)

    def run(self):
        """Starts the daemon; it stays until it is ended."""
        self.process = stage.start(*self.words("device", "run"), log=self.log, env=self.env)

    def kill(self):
        """Everything on it at once: engine, containers, mounts, the device."""
        self.machine.kill()
        self.deaths.append(boottime_ms())
        if self.process:
            self.process.wait(timeout=60)

    def boot(self):
        self.machine.resume()
        self.run()

    def history(self):
        return self.state / "orchestrator/history.jsonl"

    def logs(self):
        """What it and the daemons of its volumes told."""
        return [self.log, self.history(), *self.state.glob("volumes/*/log")]


class Person:
    """Whoever orders, with a state folder and Docker's client for images."""

    def __init__(self, folder, hive, docker_host):
        self.state, self.hive = folder / "person", hive
        self.state.mkdir()
        self.env = {**os.environ, "DOCKER_HOST": docker_host, "HOME": str(self.state)}
        self.passphrase = secret_file(folder / "secrets/passphrase", PASSPHRASE)
        self.password = secret_file(folder / "secrets/password", PASSWORD)
        self.keys = secret_file(folder / "secrets/s3", S3_KEYS)

    def ask(self, *words, timeout=600, given=""):
        """Runs `comb`, with this on its standard input; returns exit code, result, and what was said."""
        done = subprocess.run(
            [stage.Comb.binary(), "--state", str(self.state), *map(str, words)],
            input=given, capture_output=True, text=True, timeout=timeout, env=self.env, check=False,
        )
        return done.returncode, done.stdout, done.stderr

    def comb(self, *words, **more):
        code, out, said = self.ask(*words, **more)
        stage.expect(code == 0, f"comb {' '.join(map(str, words))} ended with {code}: {out}{said}")
        return out

    def json(self, *words, **more):
        return json.loads(self.comb(*words, "--json", **more))

    def refused(self, what, *words, timeout=600):
        """Expects a failure that says this; returns all that was said."""
        code, out, said = self.ask(*words, timeout=timeout)
        text = f"comb {' '.join(map(str, words))} ended with {code}: {out}{said}"
        stage.expect(code != 0 and re.search(what, out + said), f"{text}\nexpected a failure that says {what!r}")
        stage.expect("panicked" not in text and PASSPHRASE not in text and PASSWORD not in text, text)
        return said

    def sign_up(self):
        code = secret_file(self.state.parent / "secrets/setup", self.hive.setup_code())
        self.comb(
            "account", "create", self.hive.url, "--setup-code-file", code, "--password-file", self.password, "--insecure-http"
        )

    def log_in(self, name):
        """As somebody whom the hive knows already."""
        self.comb("login", self.hive.url, "--name", name, "--password-file", self.password, "--insecure-http")

    def enrol(self, device):
        """A code, one command on the device, its daemon; returns the seconds until it shows as online."""
        made = self.json("device", "code", "--name", device.name)
        begin = time.monotonic()
        device.comb("device", "join", self.hive.url, "--code", made["code"], "--name", device.name, "--passphrase-file", self.passphrase)
        device.run()

        def online():
            found = [one for one in self.json("device", "list") if one["name"] == device.name and one["state"] == "online"]
            device.id = found[0]["id"] if found else None
            return bool(found)

        stage.wait_until(online, f"enrolling {device.name}; its log: {device.log}")
        return time.monotonic() - begin

    def add_store(self, store):
        self.comb(
            "account", "store", "add", store.url, "--credentials-file", self.keys, "--passphrase-file", self.passphrase
        )

    def add(self, folder, *words):
        return self.json("app", "add", folder, "--passphrase-file", self.passphrase, *words)

    def app(self, name):
        return self.json("app", "show", name)

    def device_of(self, name):
        return self.app(name)["device"]

    def phase(self, name):
        report = self.app(name).get("report")
        return report and report["phase"]


def url_of(app, devices, service, port):
    """Where a service of an app is reached, by the device that has it."""
    at = {device.id: device.machine.address for device in devices}.get(app["device"])
    ports = (app.get("report") or {}).get("ports") or []
    given = [one["given"] for one in ports if (one["service"], one["port"]) == (service, port)]
    return f"http://{at}:{given[0]}" if at and given else None


class Notes(threading.Thread):
    """Writes notes wherever the app runs, and keeps the numbers that were answered."""

    def __init__(self, urls):
        super().__init__(daemon=True)
        self.urls, self.answered, self.end = urls, [], threading.Event()
        self.start()

    def run(self):
        while not self.end.wait(0.05):
            for url in self.urls():
                try:
                    number = machines.ask_json(f"{url}/notes", f"note of {time.time_ns()}", timeout=1)["id"]
                except (OSError, ValueError, KeyError):
                    continue  # Not answered: it may be there or not.
                self.answered.append((boottime_ms(), number))

    def silence(self, since):
        """The longest time without a committed note from then on, in seconds."""
        return longest([since, *(at for at, _ in self.answered if at >= since)])


def longest(moments):
    """The longest time between two of them, in seconds."""
    return max((after - before for before, after in zip(moments, moments[1:])), default=0) / 1000


class Listener(threading.Thread):
    """Listens to a ledger wherever it runs: keeps each record that it was told, and when; knows the longest silence."""

    def __init__(self, file, urls):
        super().__init__(daemon=True)
        self.file, self.urls, self.number, self.told, self.end = file, urls, 0, [], threading.Event()
        # (moment in ms, record's line)
        self.lock = threading.Lock()
        self.start()

    def run(self):
        with open(self.file, "a", encoding="ascii") as out:
            while not self.end.is_set():
                for url in self.urls():
                    with contextlib.suppress(OSError, ValueError):
                        for line in machines.ask(f"{url}/records?after={self.number}", timeout=0.5).splitlines():
                            number = int(line.split()[0])
                            # Another history begins where the one before was cut.
                            if number != self.number + 1:
                                break
                            self.number = number
                            out.write(f"{line}\n")
                            with self.lock:
                                self.told.append((boottime_ms(), line))
                        out.flush()
                self.end.wait(0.02)

    def since(self, moment):
        with self.lock:
            return [one for one in self.told if one[0] >= moment]

    def silence(self, since):
        """The longest time without a new record from then on, in seconds."""
        return longest([since, *(at for at, _ in self.since(since))])
