#!/bin/sh
# What the official image's entry point does, as far as a chart can rely on it: makes the database cluster in $PGDATA
# at the first start from POSTGRES_USER, POSTGRES_PASSWORD (or …_FILE), POSTGRES_DB and POSTGRES_INITDB_ARGS, runs what
# lies in /docker-entrypoint-initdb.d, then becomes the server.
set -eu
from_file() {
    eval "file=\${${1}_FILE:-}"
    if [ -n "$file" ]; then eval "export $1=\"\$(cat \"\$file\")\""; unset "${1}_FILE"; fi
}
if [ "${1#-}" != "$1" ]; then set -- postgres "$@"; fi
if [ "$1" != postgres ]; then exec "$@"; fi
sockets=/var/run/postgresql

if [ ! -s "$PGDATA/PG_VERSION" ]; then
    from_file POSTGRES_PASSWORD
    from_file POSTGRES_USER
    from_file POSTGRES_DB
    : "${POSTGRES_USER:=postgres}"
    : "${POSTGRES_DB:=$POSTGRES_USER}"
    if [ -z "${POSTGRES_PASSWORD:-}" ] && [ "${POSTGRES_HOST_AUTH_METHOD:-}" != trust ]; then
        echo "Error: Database is uninitialized and superuser password is not specified (POSTGRES_PASSWORD)." >&2
        exit 1
    fi
    mkdir -p "$PGDATA"
    chmod 700 "$PGDATA"
    umask 077
    printf '%s\n' "${POSTGRES_PASSWORD:-}" >$sockets/password
    # The word splitting is meant: it is a list of arguments.
    # shellcheck disable=SC2086
    initdb -D "$PGDATA" --username="$POSTGRES_USER" --pwfile=$sockets/password --auth-host=scram-sha-256 \
        --auth-local=trust --encoding=UTF8 ${POSTGRES_INITDB_ARGS:-}
    rm $sockets/password
    echo "host all all all ${POSTGRES_HOST_AUTH_METHOD:-scram-sha-256}" >>"$PGDATA/pg_hba.conf"
    # For set-up only over the socket: nobody may take it for the ready server.
    pg_ctl -D "$PGDATA" -w start -o "-c listen_addresses='' -p 5432 -k $sockets" >/dev/null
    export PGUSER="$POSTGRES_USER"
    if [ "$POSTGRES_DB" != postgres ]; then createdb --maintenance-db=postgres "$POSTGRES_DB"; fi
    for file in /docker-entrypoint-initdb.d/*; do
        case "$file" in
        *.sh) . "$file" ;;
        *.sql) psql -v ON_ERROR_STOP=1 --no-password --dbname="$POSTGRES_DB" -f "$file" ;;
        esac
    done
    pg_ctl -D "$PGDATA" -m fast -w stop >/dev/null
    unset PGUSER
    umask 022
    echo 'PostgreSQL init process complete; ready for start up.'
fi
shift
exec postgres -D "$PGDATA" -c listen_addresses='*' -c unix_socket_directories=$sockets "$@"
