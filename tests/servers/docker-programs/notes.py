#!/usr/bin/env python3
"""Notes in PostgreSQL, by HTTP: POST /notes keeps the body as a note, and answers its number when it is committed.

GET /notes tells how many there are and a hash over all of them, GET /notes/N one of them, GET /health whether the database answers.
"""

import http.server
import json
import os
import signal
import sys
import threading

import psycopg2

PORT = 8000
BYTES_MAX = 1 << 20
TABLE = "create table if not exists note (id bigserial primary key, text text not null, made timestamptz not null default now())"


class Database:
    """One connection for each thread that asks, made anew after it broke."""

    def __init__(self):
        self.here = threading.local()

    def ask(self, query, *values):
        connection = getattr(self.here, "connection", None)
        if connection is None or connection.closed:
            connection = psycopg2.connect(
                host=os.environ.get("DB_HOST", "db"), user=os.environ["DB_USER"], password=os.environ["DB_PASSWORD"],
                dbname=os.environ["DB_NAME"], connect_timeout=5,
            )
            self.here.connection = connection
        try:
            with connection, connection.cursor() as cursor:
                cursor.execute(query, values)
                return cursor.fetchall() if cursor.description else []
        except psycopg2.Error:
            connection.close()
            raise


class Answer(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *_):
        """Who asks is nobody's business."""

    def send(self, what, code=200):
        data = (json.dumps(what) + "\n").encode()
        self.send_response(code)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def answer(self, body):
        if self.path == "/health":
            database.ask("select 1")
            return self.send("well")
        if self.path == "/notes" and body is not None:
            database.ask(TABLE)
            return self.send({"id": database.ask("insert into note (text) values (%s) returning id", body)[0][0]})
        database.ask(TABLE)
        if self.path == "/notes":
            count, last, digest = database.ask(
                "select count(*), coalesce(max(id), 0), md5(coalesce(string_agg(id || ':' || text, ',' order by id), '')) from note"
            )[0]
            return self.send({"count": count, "last": last, "hash": digest})
        if self.path.startswith("/notes/") and self.path[7:].isdigit():
            found = database.ask("select text from note where id = %s", int(self.path[7:]))
            return self.send({"text": found[0][0]} if found else "no such note", 200 if found else 404)
        return self.send("there is /notes, /notes/N, /health", 404)

    def try_to(self, body=None):
        try:
            self.answer(body)
        except psycopg2.Error as error:
            print(f"database: {str(error).strip()}", flush=True)
            self.send("the database does not answer", 503)

    def do_GET(self):
        self.try_to()

    def do_POST(self):
        length = int(self.headers.get("Content-Length") or 0)
        if length > BYTES_MAX:
            self.close_connection = True
            self.send("too long", 413)
            return
        self.try_to(self.rfile.read(length).decode(errors="replace"))


class Server(http.server.ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 128


signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
database = Database()
Server(("", PORT), Answer).serve_forever()
