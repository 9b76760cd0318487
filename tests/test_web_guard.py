"""Who may ask: Host, Origin, token; no CORS."""

from pathlib import Path

import httpx
import pytest
from starlette.datastructures import Headers

from mien.errors import UsageError
from mien.reader import Reader
from mien.web import app as web
from mien.web import server
from mien.web.guard import Door
from mien.web.limits import RefusedError
from serving import in_thread

TOKEN = "a-token-of-the-tests"


def verdict(door: Door, path: str = "/v1/read", **headers: str) -> str | None:
    """The code of the refusal, or None."""
    try:
        door.check(path, Headers({name.replace("_", "-"): value for name, value in headers.items()}))
    except RefusedError as refused:
        return refused.code
    return None


@pytest.mark.parametrize("host", [
    "localhost", "localhost:8000", "LOCALHOST:1", "127.0.0.1", "127.0.0.1:8000", "127.9.9.9", "[::1]", "[::1]:8000",
])  # fmt: skip
def test_loopback_names_are_ours(host: str) -> None:
    assert verdict(Door(), host=host) is None
    assert verdict(Door(), host=host, origin=f"http://{host.lower()}") is None


@pytest.mark.parametrize("host", [
    "", "evil.example", "evil.example:8000", "localhost.evil.example", "127.0.0.1.evil.example", "10.0.0.1", "0.0.0.0",
    "localhost:x", "localhost:99999", "a@localhost", "localhost/", "localhost#", "[::2]", "[::1", "::1", "2130706433", "127.1",
    "localhost\\@evil.example", "localhost evil.example",
])  # fmt: skip
def test_other_hosts_are_refused(host: str) -> None:
    assert verdict(Door(), host=host) == "host"


def test_a_name_can_be_added_and_addresses_allowed() -> None:
    assert verdict(Door(names=frozenset({"pc.example"})), host="PC.example:80") is None
    assert verdict(Door(any_address=True), host="192.168.1.5:8000") is None
    assert verdict(Door(any_address=True), host="rebound.example") == "host"


@pytest.mark.parametrize("origin", [
    "null", "", "http://evil.example", "http://localhost:3000", "http://127.0.0.1:8000", "http://localhost:8000.evil.example",
    "http://localhost", "ftp://localhost:8000", "http://localhost:8000/", "file://", "http://a@localhost:8000",
])  # fmt: skip
def test_other_origins_are_refused(origin: str) -> None:
    """Even another port or name of this machine is another site."""
    assert verdict(Door(), host="localhost:8000", origin=origin) == "origin"


@pytest.mark.parametrize("given", [
    None, "", "Bearer", "Bearer ", "Bearer wrong", f"Basic {TOKEN}", TOKEN, f"Bearer {TOKEN}x", f"Bearer {TOKEN[:-1]}",
    "Bearer ünï",
])  # fmt: skip
def test_a_wrong_token(given: str | None) -> None:
    headers = {"host": "localhost"} | ({} if given is None else {"authorization": given})
    for path in ("/v1/read", "/v1/model", "/metrics"):
        assert verdict(Door(token=TOKEN), path, **headers) == "token"
    for path in ("/", "/healthz", "/page.js"):
        assert verdict(Door(token=TOKEN), path, **headers) is None


def test_the_right_token() -> None:
    for scheme in ("Bearer", "bearer"):
        assert verdict(Door(token=TOKEN), host="localhost", authorization=f"{scheme} {TOKEN}") is None


def test_over_http(tiny_model: Path) -> None:
    with in_thread(web.create_app(Reader(tiny_model, detector="whole"), door=Door(token=TOKEN))) as client:
        foreign = client.get("/v1/model", headers={"Host": "evil.example"})
        assert foreign.status_code == 403 and foreign.json()["error"]["code"] == "host"
        assert "names evil.example, not this server" in foreign.text and "--name" in foreign.text
        nameless = client.get("/v1/model")
        assert nameless.status_code == 401 and nameless.headers["WWW-Authenticate"] == "Bearer"
        assert client.get("/v1/model", headers={"Authorization": f"Bearer {TOKEN}"}).status_code == 200
        asked = preflight(client)
        assert asked.status_code == 403 and asked.json()["error"]["code"] == "origin"
        assert f"a page of http://evil.example asks {client.base_url.netloc.decode()}" in asked.text
        answers = (foreign, nameless, asked, client.get("/"))
        assert not [name for answer in answers for name in answer.headers if name.startswith("access-control")]
        assert not [answer for answer in answers if answer.headers["Cross-Origin-Resource-Policy"] != "same-origin"]


def preflight(client: httpx.Client) -> httpx.Response:
    headers = {"Origin": "http://evil.example", "Access-Control-Request-Method": "POST"}
    return client.options("/v1/read", headers=headers)


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "127.0.0.2"])
def test_a_loopback_address_needs_no_token(host: str) -> None:
    assert server.door(host, token=None, names=["PC.example"]) == Door(frozenset({"pc.example"}))


@pytest.mark.parametrize("host", ["0.0.0.0", "192.0.2.7", "::"])
def test_another_address_needs_a_token(host: str) -> None:
    with pytest.raises(UsageError, match="set MIEN_TOKEN"):
        server.door(host, token=None, names=[])
    assert server.door(host, token=TOKEN, names=[]) == Door(any_address=True, token=TOKEN)


@pytest.mark.parametrize("token", ["short", "ünïcode-ünïcode-ünïcode"])
def test_a_poor_token_is_refused(token: str) -> None:
    with pytest.raises(UsageError, match=f"MIEN_TOKEN has {len(token)} characters"):
        server.door("127.0.0.1", token=token, names=[])


def test_whitespace_around_the_token_is_no_part_of_it() -> None:
    """A secret that comes from a file ends with its line."""
    door = server.door("127.0.0.1", token=f" {TOKEN}\n", names=[])
    assert verdict(door, host="localhost", authorization=f"Bearer {TOKEN}") is None
    with pytest.raises(UsageError, match="MIEN_TOKEN has 0 characters"):
        server.door("127.0.0.1", token="  \n" * 20, names=[])


@pytest.mark.parametrize("name", ["pc.example:8000", "http://pc.example", "", "pc example", "bücher.example"])
def test_a_name_that_no_host_header_can_match_is_refused(name: str) -> None:
    with pytest.raises(UsageError, match="expected a host name alone"):
        server.door("127.0.0.1", token=None, names=[name])


def test_an_address_that_is_none() -> None:
    with pytest.raises(UsageError, match="no such address"):
        server.door("no such host", token=None, names=[])
