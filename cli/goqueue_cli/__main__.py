"""`python -m goqueue_cli`: the same as `goqueue`."""

from goqueue_cli.main import main

main(prog_name="goqueue")
