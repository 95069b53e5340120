"""What the built-in job types talk to: SMTP with STARTTLS (2525), HTTPS (8443), and what came so far (HTTP, 8000)."""

import asyncio
import json
import ssl
from typing import Any

CERTIFICATE = "/etc/receiver-certificate"

received: dict[str, list[Any]] = {"mail": [], "http": []}


async def smtp(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """One conversation: as much of SMTP as a client needs to hand over mail."""

    async def say(text: str) -> None:
        writer.write(text.encode() + b"\r\n")
        await writer.drain()

    secure, mail = False, {}
    await say("220 receiver ESMTP")
    while line := (await reader.readline()).decode().strip():
        verb = line.split()[0].upper()
        if verb == "EHLO":
            await say("250 receiver" if secure else "250-receiver\r\n250 STARTTLS")
        elif verb == "STARTTLS":
            await say("220 go ahead")
            await writer.start_tls(context)
            secure = True
        elif verb in ("MAIL", "RCPT"):
            mail[verb.lower()] = line.partition(":")[2].split()[0].strip("<>")
            await say("250 ok")
        elif verb == "DATA":
            await say("354 go on")
            text = (await reader.readuntil(b"\r\n.\r\n")).decode()
            received["mail"].append({**mail, "text": text, "tls": secure})
            print(f"mail to {mail['rcpt']}", flush=True)
            await say("250 accepted")
        elif verb == "QUIT":
            await say("221 bye")
            break
        else:
            await say("250 ok")
    writer.close()


async def http(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """One request: a POST is remembered, a GET shows all that was."""
    head = (await reader.readuntil(b"\r\n\r\n")).decode()
    request, *lines = head.strip().split("\r\n")
    headers = {name.lower(): value for name, _, value in (line.partition(": ") for line in lines)}
    method, path, _ = request.split()
    body = (await reader.readexactly(int(headers.get("content-length", "0")))).decode()
    if method == "GET":
        answer = json.dumps(received)
    else:
        received["http"].append({"method": method, "path": path, "headers": headers, "body": body})
        print(f"{method} {path} {body}", flush=True)
        answer = '{"ok": true}'
    head = f"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: {len(answer)}\r\nconnection: close"
    writer.write(f"{head}\r\n\r\n{answer}".encode())
    await writer.drain()
    writer.close()


async def main() -> None:
    """Serve until the pod goes."""
    await asyncio.gather(
        asyncio.start_server(smtp, "", 2525),
        asyncio.start_server(http, "", 8443, ssl=context),
        asyncio.start_server(http, "", 8000),
    )
    await asyncio.Event().wait()


context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
context.load_cert_chain(f"{CERTIFICATE}/tls.crt", f"{CERTIFICATE}/tls.key")
asyncio.run(main())
