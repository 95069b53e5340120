#!/bin/sh
# Make .venv from the locks: everything GoQueue and its tests need, each file checked against its hash.
# Does nothing, in a few milliseconds, while the locks are the ones it was made from.
#
#   PYTHON=/path/to/python tools/setup.sh    another Python than the newest found (3.11 or later)
#   VENV=folder tools/setup.sh               another place than .venv
#   tools/setup.sh --oldest                  prints the oldest Python that fits
#   tools/setup.sh --check                   makes nothing; fails where no Python fits
set -eu
cd "$(dirname "$0")/.."

# Runs, is new enough and can make an environment. (A name on PATH is no proof: version managers leave names there
# that only print an error, and Debian's python3 comes without venv.)
suitable() {
    "$1" -c 'import sys, ssl, venv, ensurepip; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 14))' \
        >/dev/null 2>&1
}

find_python() {
    if [ -n "${PYTHON:-}" ]; then
        suitable "$PYTHON" && echo "$PYTHON"
        return
    fi
    for version in ${1:-3.14 3.13 3.12 3.11}; do
        for candidate in "python$version" "${PYENV_ROOT:-$HOME/.pyenv}/versions/$version".*/bin/python; do
            if suitable "$candidate"; then echo "$candidate"; return; fi
        done
    done
    if suitable python3; then echo python3; fi
}

if [ "${1:-}" = --check ]; then
    [ -n "$(find_python)" ]
    exit
fi
if [ "${1:-}" = --oldest ]; then
    find_python "3.11 3.12 3.13 3.14"
    exit
fi
venv=${VENV:-.venv}

key=$(cat requirements/bootstrap.lock requirements/dev.lock pyproject.toml tools/setup.sh | cksum)${PYTHON:+ $PYTHON}
stamp=$venv/made-from
if [ -x $venv/bin/python ] && [ "$(cat $stamp 2>/dev/null)" = "$key" ]; then exit 0; fi

# Two makes at once: the second waits, then finds the work done.
if [ -z "${GOQUEUE_SETUP_LOCKED:-}" ] && command -v flock >/dev/null 2>&1; then
    mkdir -p .build
    GOQUEUE_SETUP_LOCKED=1 exec flock ".build/setup$(echo "$venv" | tr / -).lock" tools/setup.sh
fi

if ! $venv/bin/python -c '' 2>/dev/null || [ -n "${PYTHON:-}" ]; then
    python=$(find_python)
    if [ -z "$python" ]; then
        echo "GoQueue needs Python 3.11 to 3.14 with venv (Debian and Ubuntu: apt-get install python3-venv)." >&2
        exit 1
    fi
    echo "Making $venv with $("$python" --version) ..."
    "$python" -m venv --clear "$venv"
fi
if ! $venv/bin/uv --version >/dev/null 2>&1; then
    $venv/bin/python -m ensurepip -q >/dev/null 2>&1 || true
    $venv/bin/python -m pip install -q --disable-pip-version-check --require-hashes -r requirements/bootstrap.lock
fi
# Whoever pointed pip at a mirror means uv, too.
if [ -n "${PIP_INDEX_URL:-}" ]; then export UV_DEFAULT_INDEX="${UV_DEFAULT_INDEX:-$PIP_INDEX_URL}"; fi
echo "Installing from requirements/dev.lock ..."
# Compiled now, all processes of a later `make run` start in a third of the time.
export UV_COMPILE_BYTECODE=1
uv() { $venv/bin/uv --quiet --no-progress "$@"; }
uv pip sync --python $venv/bin/python --require-hashes requirements/dev.lock
# The build backend is in the lock as well: without isolation nothing unhashed is fetched.
uv pip install --python $venv/bin/python --no-deps --no-build-isolation --editable .
echo "$key" > $stamp
