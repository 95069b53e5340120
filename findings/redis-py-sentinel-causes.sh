#!/bin/sh
# redis-py 8.1.0: where no Sentinel has a master, the error names each Sentinel's error by a category, without its text.
#
# Guess before the run: "No master found for 'mymaster' : … - ConnectionError('Error 111 connecting to …')", as releases 5
# and 6 say it, since the message is made from `repr` of each Sentinel's error.
# What happens: the exceptions have a `repr` of their own by now, and "network:ConnectionError" is all that is left. A
# wrong password for a Sentinel is "auth:AuthenticationError", no word of it more. Whoever logs only this error cannot tell
# a refused connection from a host without an address. Output seen:
#
#   6.4.0: has the cause
#   8.1.0: has no cause
#
# Needs Python 3.11 or later. Exits 1 if that changes.
set -eu
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
"${PYTHON:-python3}" -m venv venv

cat >ask.py <<'END'
import socket
from redis.sentinel import MasterNotFoundError, Sentinel

with socket.create_server(("127.0.0.1", 0)) as server:
    port = server.getsockname()[1]
try:  # nobody listens there any more
    Sentinel([("127.0.0.1", port)], sentinel_kwargs={"socket_timeout": 1}).discover_master("mymaster")
except MasterNotFoundError as error:
    print("has the cause" if "refused" in str(error) else "has no cause")
END

seen=
for version in 6.4.0 8.1.0; do
    venv/bin/pip install -q redis==$version
    line="$version: $(venv/bin/python ask.py)"
    echo "$line"
    seen="$seen$line;"
done
[ "$seen" = "6.4.0: has the cause;8.1.0: has no cause;" ]
