"""A collector that costs next to nothing: `python -m benchmarks.sink` keeps what comes by OTLP, and counts when asked.

It prints its two ports, HTTP and gRPC. `GET /spans` tells how many spans came since the last time.
"""

import asyncio
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Final

import grpc  # type: ignore[import-untyped]
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

_EXPORT: Final = "/opentelemetry.proto.collector.trace.v1.TraceService/Export"

_bodies: list[bytes] = []


def _count() -> int:
    bodies = _bodies[:]
    del _bodies[: len(bodies)]
    requests = map(ExportTraceServiceRequest.FromString, bodies)
    return sum(
        len(scope.spans)
        for request in requests
        for resource in request.resource_spans
        for scope in resource.scope_spans
    )


async def _http(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    try:
        while head := await reader.readuntil(b"\r\n\r\n"):
            lines = head.lower().split(b"\r\n")
            length = next((int(line[15:]) for line in lines if line.startswith(b"content-length:")), 0)
            if lines[0].startswith(b"get /spans"):
                answer = str(_count()).encode()
            else:
                _bodies.append(await reader.readexactly(length))
                answer = b""
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%b" % (len(answer), answer))
    except asyncio.IncompleteReadError:
        writer.close()


def _keep(body: bytes, _: Any) -> bytes:
    _bodies.append(body)
    return b""


class _Grpc(grpc.GenericRpcHandler):  # type: ignore[misc]
    def service(self, handler_call_details: Any) -> Any:
        if handler_call_details.method != _EXPORT:
            return None
        return grpc.unary_unary_rpc_method_handler(_keep)


async def _main() -> None:
    server = await asyncio.start_server(_http, "127.0.0.1", 0, limit=1 << 24)
    by_grpc = grpc.server(ThreadPoolExecutor(1), handlers=(_Grpc(),))
    grpc_port = by_grpc.add_insecure_port("127.0.0.1:0")
    by_grpc.start()
    print(server.sockets[0].getsockname()[1], grpc_port, "ready", sep="\n", flush=True)
    await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(_main())
