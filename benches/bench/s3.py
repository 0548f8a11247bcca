"""An S3 server on loopback, a way to it on which each request takes longer, and another machine that opens what lies there."""

import itertools
import os
import pathlib
import re
import shutil
import time

from . import measure
from .measure import stage

PORT, PORT_FAR = 19390, 19391
FAR_MS = 20
VOLUME = stage.Comb.volume


class S3:
    """The store, and the way to it over farstore."""

    def __init__(self, work):
        self.folder = work.fresh("store")
        self.numbers = itertools.count()
        os.environ["TMPDIR"] = str(self.folder)
        lines = self.control("start").splitlines()
        settings = dict(line.split("=", 1) for line in lines if re.match(r"[A-Z_]+=", line))
        self.endpoint, self.far_endpoint = f"127.0.0.1:{PORT}", f"127.0.0.1:{PORT_FAR}"
        stage.expect(self.endpoint in settings.pop("COMB_TEST_URL"), "the server's answer is not understood")
        os.environ.update(settings)
        self.key, self.secret = settings["AWS_ACCESS_KEY_ID"], settings["AWS_SECRET_ACCESS_KEY"]
        os.environ["AWS_DEFAULT_REGION"] = "us-east-1"
        self.bucket = next(self.folder.rglob("comb-test"))
        self.process = None

    def control(self, action):
        return stage.run(stage.ROOT / "tests/servers/s3", action, "versitygw", PORT)

    def prefix(self, name):
        """A place in the store that nobody has used."""
        return f"{name}-{next(self.numbers)}"

    def url(self, prefix, far=False):
        endpoint = self.far_endpoint if far else self.endpoint
        return f"s3://comb-test/{prefix}?endpoint=http://{endpoint}&region=us-east-1"

    def objects(self, prefix, part="p"):
        """The files that hold a volume's objects."""
        return [path for path in self.bucket.glob(f"{prefix}/v/*/{part}/*") if path.is_file()]

    def stored(self, prefix):
        """The bytes of all that lies there."""
        return sum(path.stat().st_size for path in (self.bucket / prefix).rglob("*") if path.is_file())

    def far(self, delay_ms):
        """Starts a way to the store on which each request takes longer; returns what it will have been asked."""
        self.near()
        log = self.folder / f"requests-{next(self.numbers)}"
        log.touch()
        self.process = stage.start(
            measure.binary("farstore"), PORT_FAR, self.endpoint, delay_ms, log, log=self.folder / "farstore.log"
        )
        listening = f":{PORT_FAR:04X} 00000000:0000 0A"
        stage.wait_until(lambda: listening in pathlib.Path("/proc/net/tcp").read_text(), "farstore")
        return Requests(log)

    def near(self):
        """Takes that way away."""
        if self.process:
            stage.end(self.process)
            self.process = None

    def end(self):
        self.near()
        self.control("stop")


class Requests:
    """What farstore wrote down."""

    def __init__(self, log):
        self.log, self.seen = log, 0

    def new(self):
        """Those since the last look: when each came and ended, its method and its target."""
        # A line is written when the answer is through, which its reader may be a little earlier.
        time.sleep(0.05)
        lines = self.log.read_text().splitlines()[self.seen :]
        self.seen += len(lines)
        return sorted((int(came), int(ended), method, target) for came, ended, method, target, *_ in map(str.split, lines))

    @staticmethod
    def depth(requests):
        """The most of them of which each came when the one before had ended."""
        depths = []
        for came, ended, *_ in requests:
            depths.append((ended, 1 + max((depth for end, depth in depths if end <= came), default=0)))
        return max((depth for _, depth in depths), default=0)


class Elsewhere:
    """Another machine: a state folder of its own, and commands as a person gives them."""

    def __init__(self, work, key, url):
        self.place = work.fresh("elsewhere")
        self.mount_point, self.key, self.url = self.place / "mount", key, url
        self.mount_point.mkdir()

    def comb(self, *words):
        return stage.run(stage.Comb.binary(), "--state", self.place / "state", *words, timeout=1800)

    def open(self, *words):
        self.comb("volume", "open", VOLUME, "--key-file", self.key, "--store", self.url, *words)

    def mount(self):
        self.comb("mount", VOLUME, self.mount_point)

    def unmount(self):
        self.comb("unmount", self.mount_point)

    def forget(self):
        """Gives the disk back what was fetched."""
        shutil.rmtree(self.place / "state")
