#!/bin/sh
# A server closes a kept connection as the next request arrives: which clients send that request again by themselves?
#
# The server answers the first request of each connection, reads the second one whole, and closes without an answer. Each
# client sends one request to warm up and one to be lost. Clients: Go 1.26.8 (net/http), and in Python httpx 0.28.1,
# requests 2.32.5, aiohttp 3.12.15.
#
# A usual guess: nobody repeats a POST, everybody reports the lost connection. Seen:
#
#   httpx    POST without Idempotency-Key: an error
#   httpx    POST with Idempotency-Key: an error
#   httpx    PUT  without Idempotency-Key: an error
#   httpx    GET  without Idempotency-Key: an error
#   requests POST without Idempotency-Key: an error
#   requests POST with Idempotency-Key: an error
#   requests PUT  without Idempotency-Key: an error
#   requests GET  without Idempotency-Key: an error
#   aiohttp  POST without Idempotency-Key: an error
#   aiohttp  POST with Idempotency-Key: an error
#   aiohttp  PUT  without Idempotency-Key: repeated
#   aiohttp  GET  without Idempotency-Key: repeated
#   Go       POST without Idempotency-Key: an error
#   Go       POST with Idempotency-Key: repeated
#   Go       PUT  without Idempotency-Key: an error
#   Go       GET  without Idempotency-Key: repeated
#
# Go repeats a POST as soon as it has a header `Idempotency-Key`, so a header for the server changes what the client does;
# aiohttp repeats PUT, which Go does not; httpx and requests repeat nothing, not even a GET.
#
# Needs python3 (3.11 or later) with venv, and go; installs into a temporary folder. Ends with 1 where this changes.
set -eu
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q httpx==0.28.1 requests==2.32.5 aiohttp==3.12.15
cat > "$folder/main.go" <<'GO'
package main

import (
	"fmt"
	"io"
	"net/http"
	"os"
	"strings"
)

func send(method string, key bool) string {
	request, _ := http.NewRequest(method, os.Args[1], strings.NewReader("{}"))
	if key {
		request.Header.Set("Idempotency-Key", "k")
	}
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		return "error"
	}
	io.Copy(io.Discard, response.Body)
	response.Body.Close()
	return fmt.Sprint(response.StatusCode)
}

func main() {
	method, key := os.Args[2], os.Args[3] == "Idempotency-Key"
	send("POST", key)
	fmt.Print(send(method, key))
}
GO
(cd "$folder" && GOFLAGS=-mod=mod GO111MODULE=off go build -o client main.go)
cat > "$folder/run.py" <<'PYTHON'
import asyncio
import socket
import subprocess
import sys
import threading

import aiohttp
import httpx
import requests


def read(stream):
    length = 0
    while (line := stream.readline()) not in (b"\r\n", b""):
        if line.lower().startswith(b"content-length:"):
            length = int(line.split(b":")[1])
    return stream.read(length) or line


def talk(connection):
    stream = connection.makefile("rwb")
    if read(stream):
        stream.write(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n")
        stream.flush()
        read(stream)
    stream.close()
    connection.close()


def serve(listening):
    while True:
        connection, _ = listening.accept()
        threading.Thread(target=talk, args=(connection,), daemon=True).start()


listening = socket.create_server(("127.0.0.1", 0))
url = f"http://127.0.0.1:{listening.getsockname()[1]}/"
threading.Thread(target=serve, args=(listening,), daemon=True).start()


def of_httpx(method, headers):
    with httpx.Client() as client:
        client.request("POST", url, content=b"{}", headers=headers)
        return client.request(method, url, content=b"{}", headers=headers).status_code


def of_requests(method, headers):
    with requests.Session() as client:
        client.request("POST", url, data=b"{}", headers=headers)
        return client.request(method, url, data=b"{}", headers=headers).status_code


def of_aiohttp(method, headers):
    async def both():
        async with aiohttp.ClientSession() as client:
            for each in ("POST", method):
                async with client.request(each, url, data=b"{}", headers=headers) as response:
                    await response.read()
            return response.status

    return asyncio.run(both())


def of_go(method, headers):
    call = [sys.argv[1], url, method, next(iter(headers), "")]
    return int(subprocess.run(call, capture_output=True, text=True, check=True).stdout)


seen = []
for name, client in (("httpx", of_httpx), ("requests", of_requests), ("aiohttp", of_aiohttp), ("Go", of_go)):
    for method, headers in (("POST", {}), ("POST", {"Idempotency-Key": "k"}), ("PUT", {}), ("GET", {})):
        try:
            what = "repeated" if client(method, headers) == 200 else "?"
        except Exception:
            what = "an error"
        seen.append(f"{name:8} {method:4} {'with' if headers else 'without'} Idempotency-Key: {what}")
print("\n".join(seen))
told = [line[4:].rstrip() for line in open(sys.argv[2]) if line.startswith("#   ")]
raise SystemExit(told != seen)
PYTHON
"$folder/venv/bin/python" "$folder/run.py" "$folder/client" "$0"
