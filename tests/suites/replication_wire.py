#!/usr/bin/env python3
"""A line to a server on loopback that fails when it is told to: `replication_wire.py PORT SERVER_PORT [BYTES_PER_SECOND]`.

SIGUSR1: every connection is cut, and each new one as soon as it is open. SIGUSR2: connections are open, and nothing comes.
SIGHUP: well again; what was silent is cut.
"""

import asyncio
import signal
import sys

PIECE_BYTES = 16 << 10


class Wire:
    def __init__(self, server, rate):
        self.server, self.rate, self.how, self.open = server, rate, "well", set()

    def set(self, how):
        self.how = how
        if how != "silent":
            for end in self.open:
                end.transport.abort()
            self.open.clear()

    async def serve(self, reader, writer):
        self.open.add(writer)
        try:
            while self.how == "silent":
                await asyncio.sleep(0.01)
            if self.how == "cut":
                writer.transport.abort()
                return
            inside_reader, inside = await asyncio.open_connection("127.0.0.1", self.server)
            self.open.add(inside)
            await asyncio.gather(self.pump(reader, inside), self.pump(inside_reader, writer))
        except OSError:
            writer.transport.abort()

    async def pump(self, reader, writer):
        try:
            while piece := await reader.read(PIECE_BYTES):
                while self.how == "silent":
                    await asyncio.sleep(0.01)
                writer.write(piece)
                await writer.drain()
                if self.rate:
                    await asyncio.sleep(len(piece) / self.rate)
        finally:
            writer.close()
            self.open.discard(writer)


async def main():
    port, server, *rate = map(int, sys.argv[1:])
    wire = Wire(server, rate[0] if rate else None)
    loop = asyncio.get_running_loop()
    for what, how in ((signal.SIGUSR1, "cut"), (signal.SIGUSR2, "silent"), (signal.SIGHUP, "well")):
        loop.add_signal_handler(what, wire.set, how)
    # Connections that end badly are what it is for.
    loop.set_exception_handler(lambda *_: None)
    listening = await asyncio.start_server(wire.serve, "127.0.0.1", port)
    await listening.serve_forever()


asyncio.run(main())
