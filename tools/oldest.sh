#!/bin/sh
# Run pytest on the oldest Python that GoQueue supports and this machine has, in an environment of its own.
#
#   tools/oldest.sh PYTEST-ARGUMENTS
#
# asyncio changed most between 3.11 and 3.12 (tasks that begin at once), so what the engine promises is tried on both.
set -eu
cd "$(dirname "$0")/.."
python=$(tools/setup.sh --oldest)
VENV=.build/oldest/venv PYTHON=$python tools/setup.sh
.build/oldest/venv/bin/python --version
exec .build/oldest/venv/bin/python -m pytest -p no:cacheprovider "$@"
