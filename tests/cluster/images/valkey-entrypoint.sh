#!/bin/sh
# What the official image's entry point does for a server that does not run as root. There, `protected-mode` is off by
# default: a container is reached from outside of itself, or not at all.
set -eu
if [ "${1#-}" != "$1" ] || [ "${1%.conf}" != "$1" ]; then set -- valkey-server "$@"; fi
if [ "$1" = valkey-server ]; then
    case " $* " in
    *" --protected-mode "*) ;;
    *) set -- "$@" --protected-mode no ;;
    esac
fi
exec "$@"
