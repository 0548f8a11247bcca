#!/usr/bin/env python3
"""A stand-in for Synapse, started as the real one: `python /start.py generate; python /start.py`.

It keeps a configuration, a signing key and an SQLite database in /data, and answers a few of Matrix' routes; it is no chat server.
"""

import http.server
import json
import os
import pathlib
import secrets
import signal
import sqlite3
import sys
import threading

DATA = pathlib.Path("/data")
SETTINGS = DATA / "homeserver.yaml"
PORT = 8008


def generate():
    name = os.environ["SYNAPSE_SERVER_NAME"]
    if SETTINGS.exists():
        print(f"Config file {SETTINGS} already exists", flush=True)
        return
    (DATA / f"{name}.signing.key").write_text(f"ed25519 a_{secrets.token_hex(2)} {secrets.token_urlsafe(32)}\n")
    stats = os.environ.get("SYNAPSE_REPORT_STATS", "no")
    SETTINGS.write_text(f"server_name: {name}\nreport_stats: {stats}\ndatabase: {{name: sqlite3, args: {{database: /data/homeserver.db}}}}\n")


class Answer(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *_):
        """Not here."""

    def send(self, what, code=200):
        data = json.dumps(what).encode()
        self.send_response(code)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def do_GET(self):
        if self.path == "/health":
            self.send("OK")
        elif self.path == "/_matrix/client/versions":
            self.send({"versions": ["v1.1"]})
        elif self.path == "/_matrix/client/v3/events":
            with lock:
                self.send({"chunk": [row[0] for row in database.execute("select body from event order by number")]})
        else:
            self.send({"errcode": "M_UNRECOGNIZED"}, 404)

    def do_PUT(self):
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0)).decode(errors="replace")
        with lock, database:
            number = database.execute("insert into event (body) values (?)", [body]).lastrowid
        self.send({"event_id": f"${number}"})


if sys.argv[1:] == ["generate"]:
    generate()
    sys.exit()
if not SETTINGS.exists():
    sys.exit(f"{SETTINGS} does not exist; run generate first")
signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
lock = threading.Lock()
database = sqlite3.connect(DATA / "homeserver.db", check_same_thread=False)
with database:
    database.execute("create table if not exists event (number integer primary key, body text not null)")
http.server.ThreadingHTTPServer(("", PORT), Answer).serve_forever()
