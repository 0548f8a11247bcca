"""Machines with a Docker Engine of their own, on this machine: `tests/servers/docker` from Python, and HTTP to what runs on them."""

import atexit
import http.client
import json
import os
import pathlib
import subprocess
import time
import urllib.error
import urllib.request

import stage

SCRIPT = stage.ROOT / "tests/servers/docker"
APPS = stage.ROOT / "fixtures/apps"
IMAGES = pathlib.Path(os.environ.get("CARGO_TARGET_DIR", stage.ROOT / "target")) / "docker/images.tar"


def prepare():
    """The engine's packages and the images, where they are not there yet."""
    for action in ("install", "images"):
        stage.run(SCRIPT, action, timeout=1200)


class Machine:
    """One with a network and mounts of its own. It is taken away with the suite."""

    def __init__(self, name):
        self.name = f"{name}-{os.getpid()}"
        atexit.register(self.script, "stop")
        said = self.script("start", "--netns")
        words = dict(line.split("=", 1) for line in said.splitlines() if "=" in line)
        self.docker_host, self.address, self.host = words["DOCKER_HOST"], words["COMB_TEST_ADDRESS"], words["COMB_TEST_HOST"]

    def script(self, action, *words):
        return stage.run(SCRIPT, action, self.name, *words, timeout=300)

    def words(self, *command):
        """A command, as one that runs there."""
        return [str(word) for word in (SCRIPT, "enter", self.name, *command)]

    def enter(self, *command, **more):
        """Runs a command there and returns what it says."""
        return stage.run(*self.words(*command), **more)

    def docker(self, *words, **more):
        """Runs Docker's client on its engine."""
        return stage.run("docker", *words, env={**os.environ, "DOCKER_HOST": self.docker_host}, **more)

    def cut(self, *ports):
        """Nothing gets through any more, or nothing to these ports of this machine."""
        self.script("cut", *ports)

    def heal(self):
        """Everything gets through again."""
        self.script("heal")

    def halt(self):
        """Ends the engine alone."""
        self.script("halt")

    def kill(self):
        """Ends everything at once, as a power cut does."""
        self.script("kill")

    def resume(self):
        """Boots, or starts the engine again."""
        self.script("resume")

    def engine(self):
        """The number of the engine's process."""
        return int(pathlib.Path(f"/run/comb-test-docker/{self.name}/dockerd.pid").read_text())


def ask(url, body=None, timeout=10):
    """GET, or POST where there is a body; returns the text. Whatever goes wrong is an `OSError`."""
    data = body.encode() if isinstance(body, str) else body
    try:
        with urllib.request.urlopen(urllib.request.Request(url, data=data), timeout=timeout) as answer:
            return answer.read().decode()
    except http.client.HTTPException as error:
        raise OSError(f"{url}: {error!r}") from error


def ask_json(url, body=None, timeout=10):
    """The same for JSON."""
    return json.loads(ask(url, body, timeout))


def answers(url, timeout=2):
    """Whether it answers well."""
    try:
        ask(url, timeout=timeout)
        return True
    except OSError:
        return False


def ask_soon(url, body=None, seconds=60):
    """Asks until it answers."""
    until = time.monotonic() + seconds
    while True:
        try:
            return ask(url, body, timeout=5)
        except OSError as error:
            stage.expect(time.monotonic() < until, f"{url} did not answer within {seconds} s: {error}")
            time.sleep(0.1)
