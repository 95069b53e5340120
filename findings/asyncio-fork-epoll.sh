#!/bin/sh
# A forked child that only drops its copy of an asyncio connection makes its parent deaf on that connection.
#
# Versions: CPython 3.11.7 and 3.13.0 on Linux (asyncio of the standard library), redis 8.1.0.
#
# The guess: descriptors are copied by fork, so a child that closes its copy, or lets it be garbage-collected, does not
# disturb the parent, who has a copy of its own.
#
# What happens: the child shares the parent's epoll instance. Closing a transport first takes its descriptor out of the
# selector (EPOLL_CTL_DEL), and that takes it out of the parent's, too: the parent's connection is open, what it writes
# arrives, and it never hears an answer. StreamWriter.__del__ closes its transport, so collecting garbage is enough; no
# line of the child's code has to name the connection. A Redis client (redis.asyncio) that was open before the fork
# waits for the answer to its next command until its timeout, or for ever.
#
# What to do: in the child (os.register_at_fork) keep the inherited objects alive and never finalise them, and connect
# anew.
#
# Output seen:
#   asyncio: child does nothing          parent hears b'two\n'
#   asyncio: child closes its copy       parent hears nothing for 2 s
#   asyncio: child collects garbage      parent hears nothing for 2 s
#   redis: child does nothing            parent hears True
#   redis: child collects garbage        parent hears nothing for 2 s
#
# Exits 1 where that changes. Needs Linux, python3 (3.11 or newer) and a package index.
set -eu
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
"${PYTHON:-python3}" -m venv "$folder/venv"
"$folder/venv/bin/pip" -q install redis==8.1.0
cat > "$folder/fork.py" <<'END'
import asyncio
import contextlib
import gc
import os
import signal
import socketserver
import sys
import warnings

import redis.asyncio

warnings.simplefilter("ignore")


class Echo(socketserver.StreamRequestHandler):
    """Answers lines with themselves, and Redis' PING as Redis does."""

    def handle(self):
        with contextlib.suppress(ConnectionError):
            for line in self.rfile:
                if not line.startswith(b"*"):
                    self.wfile.write(line)
                    continue
                words = []
                for _ in range(int(line[1:])):
                    self.rfile.readline()
                    words.append(self.rfile.readline().strip())
                self.wfile.write(b"+PONG\r\n" if words[0] == b"PING" else b"+OK\r\n")


def in_child(act):
    pid = os.fork()
    if pid == 0:
        act()
        os._exit(0)
    os.waitpid(pid, 0)


async def heard(answer):
    try:
        async with asyncio.timeout(2):
            return await answer
    except (TimeoutError, redis.exceptions.TimeoutError):
        return "nothing for 2 s"


async def plain(port, act):
    held = list(await asyncio.open_connection("127.0.0.1", port))
    held[1].write(b"one\n")
    assert await held[0].readline() == b"one\n"

    def child():
        if act == "closes its copy":
            held[1].close()
        elif act == "collects garbage":
            held.clear()
            gc.collect()

    in_child(child)
    held[1].write(b"two\n")
    return await heard(held[0].readline())


async def with_redis(port, act):
    held = [redis.asyncio.Redis(port=port, protocol=2)]
    assert await held[0].ping()

    def child():
        if act == "collects garbage":
            held.clear()
            gc.collect()

    in_child(child)
    return await heard(held[0].ping())


def show(kind, act, found, expected):
    print(f"{kind + ': child ' + act:36} parent hears {found}", flush=True)
    return found == expected


server = socketserver.ThreadingTCPServer(("127.0.0.1", 0), Echo)
echo = os.fork()
if echo == 0:
    server.serve_forever()
DEAF = "nothing for 2 s"
try:
    port = server.server_address[1]
    same = [
        show("asyncio", "does nothing", asyncio.run(plain(port, "does nothing")), b"two\n"),
        show("asyncio", "closes its copy", asyncio.run(plain(port, "closes its copy")), DEAF),
        show("asyncio", "collects garbage", asyncio.run(plain(port, "collects garbage")), DEAF),
        show("redis", "does nothing", asyncio.run(with_redis(port, "does nothing")), True),
        show("redis", "collects garbage", asyncio.run(with_redis(port, "collects garbage")), DEAF),
    ]
finally:
    os.kill(echo, signal.SIGKILL)
sys.exit(0 if all(same) else 1)
END
"$folder/venv/bin/python" "$folder/fork.py"
