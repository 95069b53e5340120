"""The page /docs: Swagger UI from a package on this machine, so that it works where there is no internet.

Addresses are relative, for proxies that add a prefix. The page loads nothing but its own files, and its
Content-Security-Policy says so.
"""

import asyncio
import gzip
import hashlib
import re
from dataclasses import dataclass
from functools import cache
from importlib import resources
from typing import Final

from fastapi import APIRouter, Request
from fastapi.responses import Response
from starlette.exceptions import HTTPException

from goqueue_api.access import open_to_all
from goqueue_api.routing import Direct

_PAGE: Final = """<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>GoQueue</title>
<link rel="icon" href="docs/favicon-32x32.png">
<link rel="stylesheet" href="docs/swagger-ui.css">
</head>
<body>
<div id="swagger-ui"></div>
<script src="docs/swagger-ui-bundle.js"></script>
<script src="docs/start.js"></script>
</body>
</html>
"""

_START: Final = """SwaggerUIBundle({
    url: "openapi.json",
    dom_id: "#swagger-ui",
    deepLinking: true,
    displayRequestDuration: true,
    validatorUrl: null,
});
"""

_POLICY: Final = (
    "default-src 'none'; script-src 'self'; style-src 'self' 'unsafe-inline'; img-src 'self' data:;"
    " connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)

_TYPES: Final = {
    "favicon-32x32.png": "image/png",
    "start.js": "text/javascript",
    "swagger-ui-bundle.js": "text/javascript",
    "swagger-ui.css": "text/css",
}

_ZERO: Final = re.compile(r"q=0(\.0*)?")

router = APIRouter(tags=["docs"], include_in_schema=False, route_class=Direct)


@dataclass(frozen=True, slots=True)
class _File:
    plain: bytes
    gzipped: bytes
    etag: str


@cache
def _file(name: str) -> _File:
    if name == "start.js":
        plain = _START.encode()
    else:
        plain = resources.files("fastapi_swagger.resources").joinpath(name).read_bytes()
    return _File(plain, gzip.compress(plain), f'W/"{hashlib.sha256(plain).hexdigest()[:20]}"')


@router.get("/docs")
@open_to_all
async def page(request: Request) -> Response:
    """The page."""
    return Response(_PAGE, media_type="text/html", headers={"content-security-policy": _POLICY})


@router.get("/docs/")
@open_to_all
async def page_with_slash(request: Request) -> Response:
    """The page's own address, relative as all of them: a proxy may have a prefix before it."""
    return Response(status_code=308, headers={"location": "../docs"})


@router.get("/docs/{name}")
@open_to_all
async def file(request: Request, name: str) -> Response:
    """What the page consists of. Compressed, since a request has seconds only and the script is large."""
    if name not in _TYPES:
        raise HTTPException(404)
    found = await asyncio.to_thread(_file, name)
    headers = {"cache-control": "max-age=3600", "etag": found.etag, "vary": "accept-encoding"}
    if request.headers.get("if-none-match") == found.etag:
        return Response(status_code=304, headers=headers)
    if not takes_gzip(request.headers.get("accept-encoding", "")):
        return Response(found.plain, media_type=_TYPES[name], headers=headers)
    return Response(found.gzipped, media_type=_TYPES[name], headers={**headers, "content-encoding": "gzip"})


def takes_gzip(accepted: str) -> bool:
    """Whether an `Accept-Encoding` names gzip, or `*`, with a weight that is not 0 (RFC 9110, 12.5.3)."""
    weights: dict[str, str] = {}
    for item in accepted.split(","):
        coding, _, parameter = item.partition(";")
        weights[coding.strip().lower()] = parameter.replace(" ", "").lower()
    weight = weights.get("gzip", weights.get("*"))
    return weight is not None and not _ZERO.fullmatch(weight)
