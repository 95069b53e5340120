#!/bin/sh
# uvicorn 0.54.0: `--host ::` serves IPv6 alone with one process, and both families with two.
#
# Guess before the run: one setting, one behaviour; `::` takes IPv4 connections in both cases, as Linux does by default.
# What happens: with one process asyncio makes the socket, and sets IPV6_V6ONLY; with more the parent makes it, and does
# not. So an installation that goes from one process to two, or back, gains or loses IPv4. Output seen:
#
#   --workers 1: IPv6 200, IPv4 refused
#   --workers 2: IPv6 200, IPv4 200
#
# Needs Linux with IPv6 on the loopback address, net.ipv6.bindv6only=0, and Python 3.11 or later. Exits 1 if that changes.
set -eu
folder=$(mktemp -d)
server=
trap '[ -z "$server" ] || kill "$server" 2>/dev/null || true; rm -rf "$folder"' EXIT
cd "$folder"
"${PYTHON:-python3}" -m venv venv
venv/bin/pip install -q uvicorn==0.54.0

cat >app.py <<'END'
async def app(scope, receive, send):
    if scope["type"] == "http":
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b""})
END

cat >ask.py <<'END'
import sys, time, urllib.request

def ask(host):
    try:
        return str(urllib.request.urlopen(f"http://{host}:{sys.argv[1]}/", timeout=5).status)
    except OSError:
        return "refused"

until = time.monotonic() + 60
while ask("[::1]") == "refused" and time.monotonic() < until:
    time.sleep(0.2)
print(f"IPv6 {ask('[::1]')}, IPv4 {ask('127.0.0.1')}")
END

seen=
for workers in 1 2; do
    port=$(venv/bin/python -c 'import socket; s = socket.create_server(("", 0)); print(s.getsockname()[1])')
    venv/bin/python -m uvicorn app:app --lifespan off --log-level error --host :: --port "$port" --workers $workers &
    server=$!
    line="--workers $workers: $(venv/bin/python ask.py "$port")"
    kill "$server"
    wait "$server" || true
    server=
    echo "$line"
    seen="$seen$line;"
done
[ "$seen" = "--workers 1: IPv6 200, IPv4 refused;--workers 2: IPv6 200, IPv4 200;" ]
