"""The HTTP API on a real server: what it answers, what it refuses, and that one bad client does not starve others."""

from __future__ import annotations

import json
import re
import socket
import struct
import threading
import time
import zlib
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import cv2
import gantrt
import httpx
import numpy as np
import pytest
from gantrt.errors import GantrtError, UsageError
from gantrt.serve.app import create_app
from gantrt.serve.limits import Limits
from serving import PNG, Negative, client, decoded, encoded, make_app, picture, running, until
from tiny_networks import write_pointwise

ROUTE = "/api/engines/negative/pictures"


@pytest.fixture(scope="module")
def translator(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    path = write_pointwise(tmp_path_factory.mktemp("engine") / "negative.onnx", -1.0, size=(24, 32))
    with gantrt.load(path, precision="fp32") as made:
        yield made


@pytest.fixture(scope="module")
def web(translator: Any) -> Iterator[httpx.Client]:
    with client(make_app(translator, Limits(requests_per_second=1000, burst=1000, picture_bytes=100_000))) as made:
        yield made


def error(response: httpx.Response) -> dict[str, Any]:
    assert response.headers["content-type"] == "application/json"
    found: dict[str, Any] = response.json()["error"]
    assert found["message"]
    return found


def bomb(side: int) -> bytes:
    """A PNG of a few bytes that claims side x side pixels."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    head = struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(b"")) + chunk(b"IEND", b"")


def test_a_picture_comes_back_translated_in_its_format_and_size(web: httpx.Client, translator: Any) -> None:
    for height, width in ((24, 32), (31, 17)):
        image = picture(1, height, width)
        answer = web.post(ROUTE, content=encoded(image), headers=PNG)
        assert answer.status_code == 200
        assert answer.headers["content-type"] == "image/png"
        assert np.array_equal(decoded(answer.content), translator(image))
        assert answer.headers["server-timing"].startswith("total;dur=")


def test_another_format_may_be_asked_for(web: httpx.Client) -> None:
    answer = web.post(ROUTE, params={"format": "webp"}, content=encoded(picture(), ".jpg"), headers=PNG)
    assert answer.headers["content-type"] == "image/webp"
    assert answer.content[8:12] == b"WEBP"


def test_transparency_is_kept(web: httpx.Client) -> None:
    rgba = np.dstack([picture(), picture(9)[..., :1]])
    answer = web.post(ROUTE, content=cv2.imencode(".png", rgba)[1].tobytes(), headers=PNG)
    made = cv2.imdecode(np.frombuffer(answer.content, np.uint8), cv2.IMREAD_UNCHANGED)
    assert np.array_equal(made[..., 3], rgba[..., 3])


def test_engines_are_listed_without_a_word_of_the_machine(web: httpx.Client) -> None:
    text = web.get("/api/engines").text
    listed = json.loads(text)
    assert [engine["name"] for engine in listed["engines"]] == ["negative"]
    assert listed["engines"][0]["height"] == 24
    assert listed["limits"]["picture_bytes"] == 100_000
    assert "/" not in text.replace("application/", "")


@pytest.mark.parametrize(
    ("send", "status", "code"),
    [
        ({"content": b"not a picture"}, 415, "unsupported"),
        ({"content": b"GIF89a" + bytes(20)}, 415, "unsupported"),
        ({"content": b""}, 422, "unreadable"),
        ({"content": encoded(picture())[:200]}, 422, "unreadable"),
        ({"content": bomb(5001)}, 413, "too_large"),
        ({"content": bytes(100_001)}, 413, "too_large"),
        ({"content": (bytes(1000) for _ in range(101))}, 413, "too_large"),
        ({"content": encoded(picture()), "params": {"format": "bmp"}}, 422, "unreadable"),
        ({"content": encoded(picture()), "headers": {"content-type": "text/plain"}}, 415, "unsupported"),
        ({"content": encoded(picture()), "headers": PNG | {"origin": "http://evil.example"}}, 403, "wrong_origin"),
        ({"content": encoded(picture()), "headers": PNG | {"host": "evil.example"}}, 403, "wrong_host"),
    ],
    ids=[
        "garbage",
        "gif",
        "empty",
        "cut off",
        "bomb",
        "large",
        "large, unannounced",
        "format",
        "form",
        "origin",
        "host",
    ],
)
def test_what_is_wrong_is_refused_as_json(web: httpx.Client, send: dict[str, Any], status: int, code: str) -> None:
    answer = web.post(ROUTE, **({"headers": PNG} | send))
    assert answer.status_code == status
    assert error(answer)["code"] == code


def test_a_bomb_is_refused_before_memory_is_given_for_it(web: httpx.Client) -> None:
    begin = time.perf_counter()
    assert web.post(ROUTE, content=bomb(60_000), headers=PNG).status_code == 413
    assert time.perf_counter() - begin < 1


def test_unknown_places_and_methods_are_json_too(web: httpx.Client) -> None:
    for path in ("/nothing", "/../../etc/passwd", "/%2e%2e/%2e%2e/etc/passwd", "/page.js/../../app.py", "/.git/config"):
        answer = web.get(path)
        assert (answer.status_code, error(answer)["code"]) == (404, "not_found")
    answer = web.post("/api/engines/nix/pictures", content=b"x", headers=PNG)
    assert (answer.status_code, "negative" in error(answer)["message"]) == (404, True)
    answer = web.put("/healthz")
    assert (answer.status_code, error(answer)["code"], answer.headers["allow"]) == (405, "no_such_method", "GET")
    assert web.put("/api/session").headers["allow"] == "DELETE, POST"


def test_every_answer_carries_the_headers_that_keep_browsers_safe(web: httpx.Client) -> None:
    for answer in (
        web.get("/"),
        web.get("/nothing"),
        web.get("/api/engines"),
        web.post(ROUTE, content=b"", headers=PNG),
    ):
        assert answer.headers["x-content-type-options"] == "nosniff"
        assert answer.headers["content-security-policy"].startswith("default-src 'none'")
        assert "unsafe" not in answer.headers["content-security-policy"]
        assert answer.headers["x-frame-options"] == "DENY"
        assert answer.headers["referrer-policy"] == "no-referrer"
        assert "server" not in answer.headers


def test_the_page_asks_nothing_of_other_servers_and_has_no_inline_code(web: httpx.Client) -> None:
    page = web.get("/")
    assert page.headers["content-type"] == "text/html; charset=utf-8"
    names = re.findall(r'(?:src|href)="(/[^"]*)"', page.text)
    assert {"/page.js", "/page.css", "/icon.svg"} <= set(names)
    for name in [*names, "/api.js", "/camera.js", "/compare.js", "/"]:
        text = web.get(name).text
        assert not re.search(r"https?://(?!www\.w3\.org/2000/svg)", text), name
        assert not re.search(r"\son\w+=\"|style=\"|<script>|<style>|javascript:", text), name


def test_assets_are_not_sent_again_to_who_has_them(web: httpx.Client) -> None:
    first = web.get("/page.js")
    assert web.get("/page.js", headers={"if-none-match": first.headers["etag"]}).status_code == 304
    assert web.head("/page.js").content == b""


def test_health_readiness_and_metrics_say_how_it_is(web: httpx.Client) -> None:
    assert web.get("/healthz").json() == {"status": "ok"}
    assert web.get("/readyz").json() == {"status": "ok"}
    before = numbers(web)
    web.post(ROUTE, content=encoded(picture()), headers=PNG)
    web.post(ROUTE, content=b"x", headers=PNG)
    after = numbers(web)
    for name, more in {
        'gantrt_frames_total{engine="negative",kind="picture"}': 1,
        'gantrt_frame_seconds_count{engine="negative",kind="picture"}': 1,
        'gantrt_refused_total{code="unsupported"}': 1,
        f'gantrt_http_requests_total{{method="POST",route="{ROUTE.replace("negative", "{engine}")}",status="200"}}': 1,
    }.items():
        assert after[name] - before.get(name, 0) == more, name
    assert after['gantrt_queue_waiting{engine="negative"}'] == 0
    for word in ("BREW", "FOO"):
        web.request(word, "/nothing")
    assert not [name for name in numbers(web) if "BREW" in name or "FOO" in name]
    assert after["process_resident_memory_bytes"] > 1e6


def numbers(web: httpx.Client) -> dict[str, float]:
    answer = web.get("/metrics")
    assert answer.headers["content-type"].startswith("text/plain; version=")
    lines = [line.rsplit(" ", 1) for line in answer.text.splitlines() if not line.startswith("#")]
    return {name: float(value) for name, value in lines}


def test_an_app_that_is_not_started_yet_is_not_ready() -> None:
    app = make_app()
    assert app.state.gantrt.status == "starting"
    with client(app) as web:
        assert web.get("/readyz").status_code == 200
        app.state.gantrt.status = "stopping"
        assert web.get("/readyz").status_code == 503


def test_a_token_is_asked_for_everywhere_but_at_the_page_and_the_probes() -> None:
    with client(make_app(token="s3cret")) as web:
        assert {web.get(path).status_code for path in ("/", "/page.js", "/healthz", "/readyz")} == {200}
        for path in ("/api/engines", "/metrics", "/openapi.json", "/api/clips/x", "/nothing"):
            answer = web.get(path)
            assert (answer.status_code, answer.headers["www-authenticate"]) == (401, "Bearer"), path
        assert web.post(ROUTE, content=encoded(picture()), headers=PNG).status_code == 401
        bearer = {"authorization": "Bearer s3cret"}
        assert web.post(ROUTE, content=encoded(picture()), headers=PNG | bearer).status_code == 200
        assert web.get("/api/engines", headers={"authorization": "Bearer wrong"}).status_code == 401
        assert web.post("/api/session", json={"token": "wrong"}).status_code == 401
        answer = web.post("/api/session", json={"token": "s3cret"})
        assert answer.status_code == 204
        assert "HttpOnly" in answer.headers["set-cookie"]
        assert "s3cret" not in answer.headers["set-cookie"]
        assert web.get("/api/engines").status_code == 200  # with the cookie
        assert web.delete("/api/session").status_code == 204
        assert web.get("/api/engines").status_code == 401


@pytest.mark.parametrize(
    ("send", "status"),
    [
        ({"json": {"token": ""}}, 422),
        ({"json": ["s3cret"]}, 422),
        ({"content": b"K\x0fB\xff", "headers": {"content-type": "application/json"}}, 422),
        ({"content": b'{"token": "s3cret"}', "headers": {"content-type": "text/plain"}}, 415),
        ({"content": (b" " * 1000 for _ in range(11)), "headers": {"content-type": "application/json"}}, 413),
    ],
    ids=["empty", "a list", "no JSON", "a form", "without end"],
)
def test_who_is_not_known_yet_can_send_no_more_than_a_token(send: dict[str, Any], status: int) -> None:
    with client(make_app(token="s3cret")) as web:
        answer = web.post("/api/session", **send)
        assert (answer.status_code, bool(error(answer))) == (status, True)


def test_only_the_proxy_says_who_its_clients_are() -> None:
    limits = Limits(requests_per_second=0.01, burst=1)
    for proxy, expected in (("127.0.0.1", [200, 200, 429]), ("192.0.2.1", [200, 429, 429]), (None, [200, 429, 429])):
        with client(make_app(limits=limits), proxy=proxy) as web:
            forwarded = [PNG | {"x-forwarded-for": f"10.0.0.{n}"} for n in (1, 2, 2)]
            answers = [web.post(ROUTE, content=encoded(picture()), headers=headers) for headers in forwarded]
            assert [answer.status_code for answer in answers] == expected


def test_a_client_that_asks_too_often_is_told_when_to_come_back() -> None:
    with client(make_app(limits=Limits(requests_per_second=1, burst=3))) as web:
        answers = [web.post(ROUTE, content=encoded(picture()), headers=PNG) for _ in range(5)]
        assert [answer.status_code for answer in answers] == [200, 200, 200, 429, 429]
        assert error(answers[-1])["code"] == "too_many"
        assert 1 <= int(answers[-1].headers["retry-after"]) <= 2
        assert web.get("/api/engines").status_code == 200  # looking is free


def test_a_full_queue_answers_at_once_instead_of_growing() -> None:
    gate = threading.Event()
    app = make_app(Negative(gate=gate), Limits(waiting_per_client=3))
    turns = app.state.gantrt.engines["negative"].turns
    submitted: list[Any] = []
    submit = turns.submit
    turns.submit = lambda *job: submitted.append(job) or submit(*job)
    with client(app) as web, ThreadPoolExecutor(16) as pool:
        asked = []
        for waiting in (0, 0, 1, 2, 3):  # two threads have one each
            asked.append(pool.submit(web.post, ROUTE, content=encoded(picture()), headers=PNG))
            until(lambda: len(submitted) == len(asked) and turns.waiting == waiting)  # noqa: B023
        refused = web.post(ROUTE, content=encoded(picture()), headers=PNG)
        assert refused.status_code == 429
        assert int(refused.headers["retry-after"]) >= 1
        gate.set()
        assert [job.result().status_code for job in asked] == [200] * 5


def test_a_picture_that_waits_too_long_is_given_up() -> None:
    gate = threading.Event()
    app = make_app(Negative(gate=gate), Limits(wait_seconds=0.2))
    with client(app) as web:
        answer = web.post(ROUTE, content=encoded(picture()), headers=PNG)
        gate.set()
    assert answer.status_code == 503
    assert answer.headers["retry-after"]


def test_who_goes_away_gives_its_place_in_the_queue_free() -> None:
    gate = threading.Event()
    negative = Negative(gate=gate)
    app = make_app(negative)
    turns = app.state.gantrt.engines["negative"].turns
    body = encoded(picture())
    head = f"POST {ROUTE} HTTP/1.1\r\nHost: localhost\r\nContent-Type: image/png\r\nContent-Length: {len(body)}\r\n\r\n"
    with running(app) as address:
        for _ in range(5):
            leaving = socket.create_connection(address.split(":"))
            leaving.sendall(head.encode() + body)
            until(lambda: turns.waiting or negative.calls)
            time.sleep(0.05)
            leaving.close()
        until(lambda: turns.waiting == 0)
        gate.set()
    assert negative.calls <= 2, "what nobody waited for any more was translated"


def test_a_slow_body_is_given_up_and_others_are_served_meanwhile() -> None:
    limits = Limits(upload_idle_seconds=0.3)
    head = f"POST {ROUTE} HTTP/1.1\r\nHost: localhost\r\nContent-Type: image/png\r\nContent-Length: 99\r\n\r\n"
    with running(make_app(limits=limits)) as address, httpx.Client(base_url=f"http://{address}") as web:
        slow = socket.create_connection(address.split(":"))
        slow.sendall(head.encode() + b"x")
        assert web.post(ROUTE, content=encoded(picture()), headers=PNG).status_code == 200
        assert b"408" in received(slow)


def received(connection: socket.socket, seconds: float = 5) -> bytes:
    """All that comes until the other side closes."""
    connection.settimeout(seconds)
    data = b""
    while piece := connection.recv(65536):
        data += piece
        if b"\r\n\r\n" in data and b"}" in data:
            break
    return data


def test_a_head_that_drips_in_is_cut_off(monkeypatch: pytest.MonkeyPatch) -> None:
    limits = Limits(header_seconds=0.4)
    with running(make_app(limits=limits)) as address:
        begin = time.perf_counter()
        slow = socket.create_connection(address.split(":"))
        slow.sendall(b"GET / HTTP/1.1\r\nHost: localhost\r\n")
        for _ in range(3):
            time.sleep(0.05)
            slow.sendall(b"X-Slow: 1\r\n")
        assert received(slow).startswith(b"HTTP/1.1 408")
        assert time.perf_counter() - begin < 2
        silent = socket.create_connection(address.split(":"))
        silent.settimeout(5)
        assert silent.recv(10) == b""
        second = socket.create_connection(address.split(":"))  # and so is the head of a second request
        second.sendall(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n")
        assert b"200 OK" in received(second)
        second.sendall(b"GET /healthz HTT")
        assert received(second).startswith(b"HTTP/1.1 408")


def test_connections_are_counted_and_those_too_many_refused() -> None:
    limits = Limits(connections_per_client=5, header_seconds=5)
    with running(make_app(limits=limits)) as address:
        held = [socket.create_connection(address.split(":")) for _ in range(5)]
        time.sleep(0.1)
        answer = received(socket.create_connection(address.split(":")))
        assert answer.startswith(b"HTTP/1.1 429")
        assert b"retry-after" in answer
        held.pop().close()
        until(lambda: _healthy(address))


def _healthy(address: str) -> bool:
    try:
        return httpx.get(f"http://{address}/healthz").status_code == 200
    except httpx.HTTPError:
        return False


@pytest.mark.parametrize(
    "garbage",
    [
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
        b"GET\r\n\r\n",
        b"GET / HTTP/1.1\r\nA" + b"a" * 70_000,
        b"\0" * 5000,
        b"POST /x HTTP/1.1\r\nHost: a\r\nContent-Length: -1\r\n\r\n",
        b"POST /x HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    ],
    ids=["TLS", "no HTTP", "endless header", "zeros", "negative length", "smuggling"],
)
def test_garbage_is_answered_and_survived(garbage: bytes) -> None:
    with running(make_app()) as address:
        connection = socket.create_connection(address.split(":"))
        connection.sendall(garbage)
        assert re.match(rb"HTTP/1.1 4\d\d", received(connection))
        assert _healthy(address)


def test_an_error_of_ours_tells_the_client_nothing_of_it(caplog: pytest.LogCaptureFixture) -> None:
    def fail(_: Any) -> None:
        raise RuntimeError("/secret/place")

    broken = Negative()
    broken.__class__ = type("Broken", (Negative,), {"__call__": lambda self, frame: fail(frame)})
    with client(make_app(broken)) as web:
        answer = web.post(ROUTE, content=encoded(picture()), headers=PNG)
        assert answer.status_code == 500
        assert "secret" not in answer.text
        assert web.get("/healthz").status_code == 200
    assert "/secret/place" in caplog.text


def test_an_engine_of_any_size_takes_smaller_pictures_because_its_memory_grows(tmp_path: Path) -> None:
    path = write_pointwise(tmp_path / "any.onnx", -1.0, dynamic=True)
    with gantrt.load(path) as any_size, client(make_app(any_size, Limits(any_size_pixels=1000))) as web:
        assert web.post(ROUTE, content=encoded(picture(0, 20, 50)), headers=PNG).status_code == 200
        assert web.post(ROUTE, content=encoded(picture(0, 20, 51)), headers=PNG).status_code == 413


@pytest.mark.parametrize("name", ["", "a/b", "../x", "a b", "x" * 65, ".hidden"])
def test_engines_have_names_that_fit_into_an_address(name: str) -> None:
    with pytest.raises(UsageError, match="name"):
        create_app({name: Negative()})  # type: ignore[dict-item]


def test_there_must_be_an_engine_and_its_frames_are_rgb() -> None:
    with pytest.raises(UsageError, match="no engine"):
        create_app({})
    bgr = Negative()
    bgr.info.color = "bgr"
    with pytest.raises(GantrtError, match="color='rgb'"):
        make_app(bgr)


def test_openapi_names_the_engines_and_every_error(web: httpx.Client) -> None:
    schema = web.get("/openapi.json").json()
    operation = schema["paths"]["/api/engines/{engine}/pictures"]["post"]
    assert operation["parameters"][0]["schema"]["enum"] == ["negative"]
    assert {"200", "401", "403", "404", "413", "415", "422", "429", "503"} <= set(operation["responses"])
    assert set(operation["requestBody"]["content"]) >= {"image/png", "image/jpeg", "image/webp"}
