#!/bin/sh
# aiosmtplib 5.1.3 and Python's smtplib: a refusal, and then a server that falls silent.
#
# A server answers RCPT with "550 no such user" and does not answer the RSET that both clients send next. What is raised?
#
# Expected: both report the 550, which is final. Seen:
#
#   smtplib:    SMTPRecipientsRefused 550 after 2.0 s
#   aiosmtplib: SMTPReadTimeoutError after 2.0 s
#
# smtplib waits for the answer to RSET as well, but ignores that it does not come. In aiosmtplib's `sendmail` the time-out
# of RSET takes the place of the refusal (it ignores lost connections and answers only), so a queue that retries time-outs
# tries a mailbox again that does not exist. Whoever sends MAIL, RCPT and DATA by the client's own methods sees the 550.
#
# Needs python3 (3.11 or later) with venv; installs into a temporary folder. Ends with 1 where this changes.
set -eu
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q aiosmtplib==5.1.3
cat > "$folder/run.py" <<'PYTHON'
import asyncio
import smtplib
import socket
import threading
import time

import aiosmtplib


def serve(listening):
    while True:
        connection, _ = listening.accept()
        threading.Thread(target=talk, args=(connection,), daemon=True).start()


def talk(connection):
    stream = connection.makefile("rwb")
    answers = {b"EHLO": b"250 here", b"MAIL": b"250 ok", b"RCPT": b"550 no such user"}
    stream.write(b"220 here\r\n")
    stream.flush()
    for line in stream:
        if (answer := answers.get(line[:4].upper())) is not None:
            stream.write(answer + b"\r\n")
            stream.flush()


listening = socket.create_server(("127.0.0.1", 0))
port = listening.getsockname()[1]
threading.Thread(target=serve, args=(listening,), daemon=True).start()
seen = {}

begun = time.monotonic()
try:
    smtplib.SMTP("127.0.0.1", port, "me.example", timeout=2).sendmail("a@example.org", ["b@example.org"], "x")
except smtplib.SMTPException as error:
    code = error.recipients["b@example.org"][0] if isinstance(error, smtplib.SMTPRecipientsRefused) else ""
    seen["smtplib"] = f"{type(error).__name__} {code}".strip()
    print(f"smtplib:    {seen['smtplib']} after {time.monotonic() - begun:.1f} s")


async def main():
    client = aiosmtplib.SMTP(hostname="127.0.0.1", port=port, local_hostname="me.example", timeout=2, start_tls=False)
    await client.connect()
    begun = time.monotonic()
    try:
        await client.sendmail("a@example.org", ["b@example.org"], "x")
    except aiosmtplib.SMTPException as error:
        seen["aiosmtplib"] = type(error).__name__
        print(f"aiosmtplib: {seen['aiosmtplib']} after {time.monotonic() - begun:.1f} s")
    client.close()


asyncio.run(main())
raise SystemExit(seen != {"smtplib": "SMTPRecipientsRefused 550", "aiosmtplib": "SMTPReadTimeoutError"})
PYTHON
"$folder/venv/bin/python" "$folder/run.py"
