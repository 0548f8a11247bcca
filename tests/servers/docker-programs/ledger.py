#!/usr/bin/env python3
"""A ledger: numbered records in one file, each told only after it was synced.

It writes one every EVERY_MS milliseconds (0: only when asked). A record is a line `number life time chain`: life is random for each
start, chain a hash of everything up to it, so two ledgers that have the same last chain have the same records, and a hole, a change or
a second history cannot be hidden. At its start it reads all of them, and ends with 2 if one is wrong; half a line at the end was never
told, and is cut off.

What was told is what counts: a line on stdout, the answer to POST /records, and a line of GET /follow come after the sync.
"""

import hashlib
import http.server
import json
import os
import secrets
import signal
import sys
import threading
import time
import urllib.parse

FILE = "/data/ledger"
EVERY_MS = int(os.environ.get("EVERY_MS", "100"))
PORT = 8000
NOTHING = "0" * 32


def chain_of(before, number, life, when):
    return hashlib.sha256(f"{before} {number} {life} {when}".encode()).hexdigest()[:32]


class Ledger:
    def __init__(self):
        self.life = secrets.token_hex(4)
        self.changed = threading.Condition()
        self.records, chain = [], NOTHING
        new = not os.path.exists(FILE)
        self.file = os.open(FILE, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o644)
        if new:
            self.sync_folder()
        with open(FILE, encoding="ascii") as text:
            data = text.read()
        whole = data.rfind("\n") + 1
        for line in data[:whole].splitlines():
            number, life, when, said = line.split(" ")
            chain = chain_of(chain, int(number), life, when)
            if int(number) != len(self.records) + 1 or said != chain:
                sys.exit(self.wrong(len(self.records) + 1, line))
            self.records.append(line)
        if whole < len(data):
            print(f"half a record at {whole}: cut off", flush=True)
            os.truncate(FILE, whole)
            os.fsync(self.file)
        self.chain = chain
        print(f"opened life {self.life} records {len(self.records)} chain {chain}", flush=True)

    @staticmethod
    def wrong(number, line):
        print(f"record {number} is wrong: {line}", flush=True)
        return 2

    @staticmethod
    def sync_folder():
        folder = os.open(os.path.dirname(FILE), os.O_RDONLY)
        os.fsync(folder)
        os.close(folder)

    def add(self, count=1):
        """Writes records, syncs, and tells them."""
        with self.changed:
            lines, chain = [], self.chain
            for number in range(len(self.records) + 1, len(self.records) + count + 1):
                when = str(time.time_ns() // 1_000_000)
                chain = chain_of(chain, number, self.life, when)
                lines.append(f"{number} {self.life} {when} {chain}")
            data = "".join(f"{line}\n" for line in lines).encode()
            try:
                if os.write(self.file, data) != len(data):
                    raise OSError("a short write")
                os.fsync(self.file)
            except OSError as error:
                # Whether it is there nobody knows: it was not told. The next start looks.
                print(f"cannot write: {error}", flush=True)
                os._exit(1)
            self.records += lines
            self.chain = chain
            for line in lines:
                print(f"told {line}", flush=True)
            self.changed.notify_all()
            return lines

    def after(self, number, wait_s):
        """The records above this number, once there is one."""
        with self.changed:
            self.changed.wait_for(lambda: len(self.records) > number, wait_s)
            return self.records[number:]


class Answer(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *_):
        """Stdout is for records."""

    def send(self, text, kind="text/plain", code=200):
        data = text.encode()
        self.send_response(code)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def number(self, query, name, default):
        values = urllib.parse.parse_qs(query).get(name, [])
        return int(values[0]) if values and values[0].isdigit() else default

    def do_GET(self):
        path, _, query = self.path.partition("?")
        if path == "/health":
            self.send("well\n")
        elif path == "/last":
            with ledger.changed:
                said = {"number": len(ledger.records), "chain": ledger.chain, "life": ledger.life}
            self.send(json.dumps(said) + "\n", "application/json")
        elif path == "/records":
            self.send("".join(f"{line}\n" for line in ledger.after(self.number(query, "after", 0), 0)))
        elif path == "/follow":
            self.follow(self.number(query, "after", 0))
        else:
            self.send("there is /health, /last, /records, /follow\n", code=404)

    def follow(self, number):
        self.close_connection = True
        self.send_response(200)
        self.send_header("Content-Type", "text/plain")
        self.end_headers()
        try:
            while True:
                lines = ledger.after(number, 10)
                number += len(lines)
                self.wfile.write("".join(f"{line}\n" for line in lines).encode())
        except OSError:
            pass  # The reader went.

    def do_POST(self):
        self.rfile.read(int(self.headers.get("Content-Length") or 0))
        path, _, query = self.path.partition("?")
        if path != "/records":
            self.send("there is /records\n", code=404)
            return
        lines = ledger.add(min(self.number(query, "count", 1), 10_000))
        self.send("".join(f"{line}\n" for line in lines))


class Server(http.server.ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 128


ended = threading.Event()
signal.signal(signal.SIGTERM, lambda *_: ended.set())
signal.signal(signal.SIGINT, lambda *_: ended.set())
ledger = Ledger()
threading.Thread(target=Server(("", PORT), Answer).serve_forever, daemon=True).start()
while not ended.wait(EVERY_MS / 1000 if EVERY_MS else None):
    ledger.add()
with ledger.changed:
    print(f"closed records {len(ledger.records)} chain {ledger.chain}", flush=True)
    os._exit(0)
