"""What the suites share: running commands, mounting, and saying how it went.

A suite is a program `SUITE DIR --short|--long`. DIR is any folder that it may fill; the suite makes a folder of its own
in it and leaves it behind only when it fails. It exits with 0 when it passed, 1 when it failed, 77 when it cannot be
run here; its last line says what was done.
"""

import argparse
import atexit
import os
import pathlib
import pwd
import shutil
import signal
import subprocess
import sys
import time

ROOT = pathlib.Path(__file__).resolve().parents[2]
TOOLS = ROOT / "target/suites/tools"
EXIT_SKIPPED = 77


class Failed(Exception):
    """The suite found something that is not as promised."""


class Skipped(Exception):
    """The suite cannot be run here; says why."""


def expect(truth, sentence):
    """Fails with the sentence unless it is true."""
    if not truth:
        raise Failed(sentence)


def suite(document, body, arguments=lambda parser: None):
    """Runs `body(folder, long, options)` in a fresh folder below DIR and turns its end into an exit code."""
    parser = argparse.ArgumentParser(description=document, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("dir", type=pathlib.Path, help="a folder on the filesystem under test")
    form = parser.add_mutually_exclusive_group(required=True)
    form.add_argument("--short", action="store_true", help="seconds to a few minutes, for every change")
    form.add_argument("--long", action="store_true", help="as long as it takes, for a release")
    arguments(parser)
    options = parser.parse_args()
    # The name of a parent that was hidden by `..` would confuse programs which compare paths.
    folder = options.dir.resolve() / pathlib.Path(sys.argv[0]).name
    # An ended suite leaves no process and no mount behind, so a stop by signal is an end like any other.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    # Runs last, when the daemons that `start` started are gone.
    atexit.register(unmount_below, folder)
    try:
        unmount_below(folder)
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        summary = body(folder, options.long, options)
    except Failed as failure:
        print(f"FAILED: {failure}")
        sys.exit(1)
    except Skipped as reason:
        print(f"skipped: {reason}")
        sys.exit(EXIT_SKIPPED)
    except subprocess.CalledProcessError as failure:
        print(f"FAILED: {failure}\n{failure.stdout or ''}{failure.stderr or ''}")
        sys.exit(1)
    except subprocess.TimeoutExpired as failure:
        print(f"FAILED: {failure}")
        sys.exit(1)
    shutil.rmtree(folder, ignore_errors=True)
    print(f"passed: {summary}")


def run(*command, user=None, timeout=600, check=True, **more):
    """Runs a command and returns its output, both streams in one; fails when it fails."""
    words = [str(word) for word in command]
    if user:
        account = pwd.getpwnam(user)
        more |= {"user": account.pw_uid, "group": account.pw_gid, "extra_groups": [], "cwd": "/"}
    done = subprocess.run(
        words, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=timeout, **more
    )
    # Databases show bytes of their own making; they must not end the suite.
    done.stdout = done.stdout.decode(errors="replace")
    if check and done.returncode:
        raise subprocess.CalledProcessError(done.returncode, words, done.stdout)
    return done.stdout


def start(*command, user=None, log, **more):
    """Starts a program that is ended, at the latest, with the suite; its output goes to `log`."""
    if user:
        account = pwd.getpwnam(user)
        more |= {"user": account.pw_uid, "group": account.pw_gid, "extra_groups": [], "cwd": "/"}
    with open(log, "ab") as out:
        process = subprocess.Popen(
            [str(word) for word in command], stdin=subprocess.DEVNULL, stdout=out, stderr=subprocess.STDOUT, **more
        )
    atexit.register(end, process)
    return process


def end(process, how=signal.SIGKILL):
    """Ends a program that `start` started, and waits for it."""
    if process.poll() is None:
        process.send_signal(how)
    process.wait(timeout=120)


def wait_until(truth, what, seconds=60):
    """Waits until `truth()` holds."""
    until = time.monotonic() + seconds
    while not truth():
        expect(time.monotonic() < until, f"{what} took longer than {seconds} s")
        time.sleep(0.02)


def need_root():
    """Some suites become other users or mount."""
    if os.geteuid() != 0:
        raise Skipped("needs root")


def tool(name, *elsewhere):
    """The path of a program: of the tools that `run` installs, of PATH, or of the folders named."""
    folders = [str(TOOLS / "bin"), os.environ.get("PATH", ""), "/usr/sbin", *map(str, elsewhere)]
    found = shutil.which(name, path=":".join(folders))
    if not found:
        raise Skipped(f"{name} is not installed")
    return found


def is_mount(folder):
    """Whether something is mounted there, dead or alive; unlike os.path.ismount it never asks the filesystem."""
    path = str(folder).replace("\\", "\\134").replace(" ", "\\040")
    with open("/proc/self/mounts", encoding="utf-8") as mounts:
        return any(line.split(" ")[1] == path for line in mounts)


def unmount_by_force(folder):
    """Takes a mount away whose daemon may be dead."""
    while is_mount(folder):
        run("umount", "--lazy", folder)


def unmount_below(folder):
    """Takes away what a failed run left mounted."""
    with open("/proc/self/mounts", encoding="utf-8") as mounts:
        points = [line.split(" ")[1] for line in mounts]
    for point in reversed(points):
        if point.startswith(f"{folder}/"):
            run("umount", "--lazy", point, check=False)


class Comb:
    """One volume of one state folder, served by a daemon that this process started."""

    name = "comb"
    volume = "suite"

    def __init__(self, state, mount_point, log, writeback=True):
        self.state, self.mount_point, self.log = pathlib.Path(state), pathlib.Path(mount_point), log
        self.writeback, self.daemon = writeback, None

    @staticmethod
    def binary():
        """The release `comb`: $COMB, or the one that cargo builds."""
        given = os.environ.get("COMB")
        if given:
            return given
        target = pathlib.Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target"))
        return str(target / "release/comb")

    def comb(self, *words, **more):
        """Runs `comb --state …`."""
        return run(self.binary(), "--state", self.state, *words, **more)

    def create(self):
        """Makes the state folder and its volume."""
        self.state.mkdir(parents=True, exist_ok=True)
        self.comb("volume", "create", self.volume)

    def mount(self):
        """Mounts; returns when the mount answers."""
        self.mount_point.mkdir(parents=True, exist_ok=True)
        words = [] if self.writeback else ["--no-writeback"]
        # In the foreground the daemon is our child, so a kill hits it and nothing else.
        self.daemon = start(
            self.binary(), "--state", self.state, "mount", self.volume, self.mount_point, "--foreground", *words,
            log=self.log,
        )
        wait_until(lambda: is_mount(self.mount_point) or self.daemon.poll() is not None, "mounting")
        expect(self.daemon.poll() is None, f"the daemon ended while mounting; see {self.log}")

    def unmount(self):
        """Unmounts; returns when the daemon has sealed and ended."""
        self.comb("unmount", self.mount_point)
        code = self.daemon.wait(timeout=300)
        expect(code == 0, f"the daemon ended with {code}; see {self.log}")

    def kill(self):
        """Kills the daemon as a crash would, and clears the dead mount away."""
        end(self.daemon)
        unmount_by_force(self.mount_point)

    def check(self):
        """Reads and verifies everything."""
        return self.comb("check", self.volume, timeout=3600)


class Ram:
    """A FUSE server that keeps everything in memory: what a crash test must find wanting."""

    name = "ram"

    def __init__(self, state, mount_point, log, writeback=True, mode="ram", more=()):
        self.mount_point, self.log = pathlib.Path(mount_point), log
        self.mode, self.more, self.writeback, self.daemon = mode, more, writeback, None
        del state

    @staticmethod
    def binary():
        """The reference server of `benches/`."""
        target = pathlib.Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target"))
        return str(target / "release/fusenull")

    def create(self):
        """Nothing lasts, so nothing is made."""

    def mount(self):
        """Mounts an empty tree."""
        self.mount_point.mkdir(parents=True, exist_ok=True)
        words = [] if self.writeback else ["--no-writeback"]
        self.daemon = start(self.binary(), self.mode, self.mount_point, *self.more, *words, log=self.log)
        wait_until(lambda: is_mount(self.mount_point) or self.daemon.poll() is not None, "mounting")
        expect(self.daemon.poll() is None, f"the server ended while mounting; see {self.log}")

    def unmount(self):
        """Unmounts, and loses everything."""
        run("umount", self.mount_point)
        self.daemon.wait(timeout=60)

    kill = Comb.kill

    def check(self):
        """There is nothing to check."""
        return ""


class Plain:
    """A plain folder of the disk, for the proof that a suite itself is right."""

    name = "plain"

    def __init__(self, state, mount_point, log, writeback=True):
        self.mount_point = pathlib.Path(mount_point)
        self.daemon = None
        del state, log, writeback

    def create(self):
        """Makes the folder."""
        self.mount_point.mkdir(parents=True, exist_ok=True)

    def mount(self):
        """A folder is always there."""

    def unmount(self):
        """A folder stays."""

    def kill(self):
        """The kernel is not killed; only the writers are."""

    def check(self):
        """There is nothing to check."""
        return ""


SUBJECTS = {"comb": Comb, "ram": Ram, "plain": Plain}
