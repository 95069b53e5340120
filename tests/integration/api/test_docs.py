"""The page /docs of the real server: complete without the internet."""

import re
from html.parser import HTMLParser
from urllib.parse import urljoin

import httpx
import pytest


class Links(HTMLParser):
    """Every address that a page names, and every script that stands in it."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.found: list[str] = []
        self.inline = 0
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        named = [value for name, value in attrs if name in ("href", "src", "action") and value]
        self.found += named
        self.inline += tag in ("script", "style") and not named


@pytest.fixture
async def page(client: httpx.AsyncClient) -> httpx.Response:
    response = await client.get("/docs")
    assert response.status_code == 200
    return response


async def test_every_file_that_the_docs_page_names_is_served_by_the_api_itself(
    client: httpx.AsyncClient, page: httpx.Response
) -> None:
    links = Links(page.text).found
    assert len(links) == 4
    for link in links:
        assert not re.match(r"[a-z]+:|//", link), f"{link} leaves this server"
        response = await client.get(urljoin("/docs", link))
        assert response.status_code == 200
        assert response.content
        assert response.headers["content-type"].split(";")[0] in ("image/png", "text/css", "text/javascript")


async def test_the_docs_page_shows_the_openapi_document_and_asks_no_other_host(
    client: httpx.AsyncClient, page: httpx.Response
) -> None:
    start = (await client.get("/docs/start.js")).text
    named = re.search(r'url: "([^"]+)"', start)
    assert named
    assert (await client.get(urljoin("/docs", named[1]))).json()["info"]["title"] == "GoQueue"
    assert "validatorUrl: null" in start  # Swagger UI would ask validator.swagger.io
    assert "://" not in page.text + start
    # Style sheets load what they name; scripts are bound by the policy.
    css = (await client.get("/docs/swagger-ui.css")).text
    assert "@import" not in css
    assert all(url.strip("'\"").startswith("data:") for url in re.findall(r"url\(([^)]{1,20})", css))


async def test_the_docs_page_lets_a_browser_run_and_ask_nothing_foreign(page: httpx.Response) -> None:
    policy = dict(part.split(maxsplit=1) for part in page.headers["content-security-policy"].split("; "))
    assert policy["default-src"] == "'none'"
    assert policy["script-src"] == policy["connect-src"] == "'self'"
    assert not any(host in value for value in policy.values() for host in ("http", "*", "unsafe-eval"))
    assert Links(page.text).inline == 0


async def test_files_of_the_docs_page_travel_compressed_and_only_once(client: httpx.AsyncClient) -> None:
    compressed = await client.get("/docs/swagger-ui-bundle.js")
    plain = await client.get("/docs/swagger-ui-bundle.js", headers={"accept-encoding": "identity"})
    assert compressed.content == plain.content
    assert int(compressed.headers["content-length"]) < int(plain.headers["content-length"]) / 3
    again = await client.get("/docs/swagger-ui-bundle.js", headers={"if-none-match": plain.headers["etag"]})
    assert (again.status_code, again.content) == (304, b"")


@pytest.mark.parametrize("name", ["__init__.py", "../docs.py", "%2e%2e%2f__init__.py", "index.html"])
async def test_nothing_but_the_files_of_the_docs_page_is_served(client: httpx.AsyncClient, name: str) -> None:
    assert (await client.get(f"/docs/{name}")).status_code == 404


async def test_a_wrong_method_on_the_docs_page_names_the_right_one(client: httpx.AsyncClient) -> None:
    response = await client.post("/docs")
    assert (response.status_code, response.headers["allow"]) == (405, "GET, HEAD")


async def test_the_docs_page_is_found_with_a_slash_at_its_end_too_behind_any_prefix(client: httpx.AsyncClient) -> None:
    response = await client.get("/docs/")
    assert (response.status_code, response.headers["location"]) == (308, "../docs")
    assert (
        urljoin("https://example.org/prefix/docs/", response.headers["location"]) == "https://example.org/prefix/docs"
    )
    assert "swagger-ui" in (await client.get("/docs/", follow_redirects=True)).text
