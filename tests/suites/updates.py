"""Updates of an app whose images come from a registry: Debian's `docker-registry`, without credentials, where devices reach it."""

import json
import os
import pathlib

import machines
import parties
import stage

FOLDER = pathlib.Path(os.environ.get("CARGO_TARGET_DIR", stage.ROOT / "target")) / "docker/registry"

# Two volumes, so that a moment is one of both; the second is written by hand.
COMPOSE = """\
x-comb:
  health: {{startup: 20s, http: {{service: ledger, port: 8000, path: /health, contains: well}}}}
  update: {{stable: 5s}}
services:
  ledger:
    image: {image}
    environment: {{EVERY_MS: "100"}}
    ports: ["8000"]
    volumes: ["records:/data", "beside:/beside"]
    stop_grace_period: 5s
volumes: {{records: , beside: }}
"""
# What it writes is not to be there after it went back.
NEVER_WELL = 'ENTRYPOINT ["sh", "-c", "echo broken > /data/ledger; rm -f /beside/word; exec sleep infinity"]'


class Registry:
    """Keeps images as long as the suite runs."""

    def __init__(self, folder, host):
        self.address = f"{host}:{parties.free_port(host)}"
        program = FOLDER / "usr/bin/docker-registry"
        if not program.exists():
            # Its package would start it by itself, so it is only unpacked.
            FOLDER.mkdir(parents=True, exist_ok=True)
            stage.run("apt-get", "update", "-q")
            stage.run("apt-get", "download", "-q", "docker-registry", cwd=FOLDER)
            stage.run("dpkg-deb", "-x", next(FOLDER.glob("docker-registry_*.deb")), FOLDER)
        settings = folder / "registry.yml"
        storage = {"filesystem": {"rootdirectory": str(folder / "registry")}}
        # JSON is YAML.
        settings.write_text(json.dumps({"version": "0.1", "storage": storage, "http": {"addr": self.address}}))
        self.process = stage.start(program, "serve", settings, log=folder / "registry.log")
        stage.wait_until(lambda: machines.answers(f"http://{self.address}/v2/"), "the registry's start")

    def publish(self, machine, tag, *changes):
        """An image of the ledger, changed, with root as its user; it is in the registry then, and on no machine."""
        image = f"{self.address}/ledger:{tag}"
        container = machine.docker("create", "comb-fixtures/ledger:1").strip()
        machine.docker("commit", *(word for change in ("USER root", *changes) for word in ("--change", change)), container, image)
        machine.docker("rm", container)
        machine.docker("push", "-q", image)
        machine.docker("rmi", image)
        return image


def play(world):
    """One update that is well, and one that is not; what runs and what is in the volumes is looked at after each."""
    registry = Registry(world.folder, world.hive.host)
    folder = world.folder / "shop"
    folder.mkdir()
    passphrase = ("--passphrase-file", world.person.passphrase)

    def write(image):
        (folder / "compose.yaml").write_text(COMPOSE.format(image=image))

    def environment():
        words = world.inside(world.one, "shop", "ledger", "env").splitlines()
        return dict(line.split("=", 1) for line in words if "=" in line)

    def reasons():
        moments = json.loads(world.person.comb("app", "log", "shop", "--json"))["items"]
        return {one["reason"]: one for one in moments}

    def check(told):
        """All that was told is in the volume."""
        return world.history("--told", told, "--volume", world.records("shop"))

    write(registry.publish(world.one.machine, 1, "ENV SHOP=first"))
    world.person.add(folder, "--name", "shop", "--device", "one")
    world.wait_running("shop", world.one)
    world.inside(world.one, "shop", "ledger", "sh", "-c", "echo kept > /beside/word")

    listener = parties.Listener(world.folder / "told-update", world.urls("shop"))
    stage.wait_until(lambda: len(listener.told) > 50, "records", 60)
    write(registry.publish(world.one.machine, 2, "ENV SHOP=second"))
    before = parties.boottime_ms()
    world.person.comb("app", "update", "shop", folder, *passphrase)
    world.wait_running("shop", world.one)
    stage.expect(environment()["SHOP"] == "second", "the update is told as done, and the old image runs")
    moment = reasons().get("update")
    stage.expect(moment and len(moment["volumes"]) == 2, f"no moment of both volumes was kept before the update: {moment}")
    count = len(listener.told)
    stage.wait_until(lambda: len(listener.told) > count + 50, "the ledger going on", 60)
    world.note(f"update: a new image was pulled and runs; {listener.silence(before):.1f} s without a write")

    write(registry.publish(world.one.machine, 3, "ENV SHOP=third", NEVER_WELL))
    safe = len(listener.told)
    said = world.person.refused("old one runs again", "app", "update", "shop", folder, *passphrase)
    world.wait_running("shop", world.one)
    stage.expect(environment()["SHOP"] == "second", f"not the image before is what runs: {said}")
    word = world.inside(world.one, "shop", "ledger", "cat", "/beside/word").strip()
    stage.expect(word == "kept", f"the second volume has {word!r} and not what it had before the update")
    stage.expect("update-failed" in reasons(), "what the update wrote is no moment")
    listener.end.set()
    listener.join()
    # Up to the moment all is there; what was told between it and the end of the old containers is with what was gone back over.
    told = world.folder / "told-safe"
    told.write_text("".join(f"{line}\n" for _, line in listener.told[:safe]))
    world.note(f"update: one that never gets well went back, image and data; {check(told)}")
