"""Who may come in: tokens, sessions, and the rules against other web pages; and how much one may ask for."""

from __future__ import annotations

import time

import pytest
from gantrt.errors import UsageError
from gantrt.serve.access import COOKIE, Access, client_of
from gantrt.serve.limits import Limits, Rate
from gantrt.serve.problems import Problem


def refused(call: object, *args: object) -> Problem:
    with pytest.raises(Problem) as caught:
        call(*args)  # type: ignore[operator]
    return caught.value


@pytest.mark.parametrize(
    "host", ["localhost", "LOCALHOST:8000", "127.0.0.1:8000", "[::1]:8000", "10.1.2.3", "lab.example:1"]
)
def test_own_names_and_addresses_are_right(host: str) -> None:
    Access(hosts=["lab.example"]).check_host(host)


@pytest.mark.parametrize(
    "host", ["evil.example", "127.0.0.1.evil.example", "localhost.evil.example:8000", "", "[evil]"]
)
def test_a_rebound_name_is_refused(host: str) -> None:
    assert refused(Access().check_host, host).status == 403


def test_any_name_is_right_where_that_was_asked_for() -> None:
    Access(hosts=["*"]).check_host("evil.example")


@pytest.mark.parametrize(
    "origin", ["http://evil.example", "null", "http://localhost:8001", "http://localhost", "http://127.0.0.1:8000", "x"]
)
@pytest.mark.parametrize("method", ["POST", "DELETE", "CONNECT"])
def test_pages_of_other_origins_change_nothing(origin: str, method: str) -> None:
    assert refused(Access().check_origin, method, {"host": "localhost:8000", "origin": origin}).code == "wrong_origin"


@pytest.mark.parametrize(
    ("host", "origin"),
    [("localhost:8000", "http://localhost:8000"), ("a.example", "https://a.example"), ("[::1]:80", "http://[::1]")],
)
def test_the_page_itself_may(host: str, origin: str) -> None:
    Access().check_origin("POST", {"host": host, "origin": origin, "sec-fetch-site": "same-origin"})


def test_programs_send_no_origin_and_may() -> None:
    Access().check_origin("POST", {"host": "localhost"})
    assert refused(Access().check_origin, "POST", {"host": "localhost", "sec-fetch-site": "cross-site"}).status == 403


def test_the_token_opens_and_nothing_else_does() -> None:
    access = Access("s3cret")
    access.check_token("me", {"authorization": "Bearer s3cret"}, {})
    access.check_token("me", {"authorization": "bearer s3cret"}, {})
    for headers in ({}, {"authorization": "Basic s3cret"}, {"authorization": "Bearer "}):
        assert refused(access.check_token, "me", headers, {}).code == "no_token"
    for given in ("s3cre", "s3crett", "S3CRET", "é", "\udcff"):
        assert refused(access.check_token, given, {"authorization": f"Bearer {given}"}, {}).code == "wrong_token"


def test_without_a_token_everybody_may() -> None:
    Access().check_token("me", {}, {})
    assert not Access().needs_token


def test_a_session_is_good_for_a_while_for_every_replica_and_cannot_be_forged(monkeypatch: pytest.MonkeyPatch) -> None:
    cookie = Access("s3cret").log_in("me", "s3cret")
    replica = Access("s3cret")
    replica.check_token("me", {}, {COOKIE: cookie})
    until, _, signature = cookie.partition(".")
    for forged in (
        "",
        ".",
        until,
        f"{int(until) + 1}.{signature}",
        f"{until}.{signature[:-1]}",
        f"²{until}.{signature}",
    ):
        assert refused(replica.check_token, "me", {}, {COOKIE: forged}).status == 401
    assert refused(Access("other").check_token, "me", {}, {COOKIE: cookie}).status == 401
    now = time.monotonic()
    monkeypatch.setattr(time, "monotonic", lambda: now + 13 * 3600.0)
    assert refused(replica.check_token, "me", {}, {COOKIE: cookie}).status == 401


def test_cookies_are_kept_from_scripts_and_other_sites() -> None:
    cookie = Access("s3cret").cookie("x", secure=True)
    assert {"HttpOnly", "SameSite=Strict", "Secure", "Path=/"} <= set(cookie.split("; "))
    assert "Secure" not in Access("s3cret").cookie("x", secure=False)
    assert "Max-Age=0" in Access("s3cret").cookie("", secure=False)


def test_guessing_is_slowed_down_even_for_the_right_guess() -> None:
    access = Access("s3cret")
    codes = [refused(access.log_in, "mallory", f"guess{i}").code for i in range(12)]
    assert codes[0] == "wrong_token"
    assert codes[-1] == "too_many"
    assert refused(access.log_in, "mallory", "s3cret").retry_after is not None
    assert access.log_in("alice", "s3cret")


def test_a_client_is_an_address_or_a_network_of_ipv6() -> None:
    assert client_of("10.0.0.7") == client_of("::ffff:10.0.0.7") == "10.0.0.7"
    assert client_of("2001:db8:1:2::1") == client_of("2001:db8:1:2:ffff::9") != client_of("2001:db8:1:3::1")
    assert client_of(None) == "local"


def test_a_rate_gives_a_burst_then_so_many_a_second_to_each_key() -> None:
    now = 0.0
    rate = Rate(2.0, 3.0, clock=lambda: now)
    assert [rate.take("a") for _ in range(4)] == [0, 0, 0, 0.5]
    assert rate.take("b") == 0
    now = 0.5
    assert rate.wait("a") == 0
    assert rate.take("a") == 0
    assert rate.take("a") == 0.5
    now = 100.0
    assert [rate.take("a") for _ in range(4)] == [0, 0, 0, 0.5]


def test_a_rate_forgets_old_keys_so_that_many_addresses_do_not_fill_memory() -> None:
    rate = Rate(1.0, 1.0)
    for i in range(20_000):
        rate.take(str(i))
    assert len(rate._buckets) <= 10_000


def test_limits_are_set_by_name() -> None:
    limits = Limits.of(["clip_seconds=2.5", "live=3"])
    assert (limits.clip_seconds, limits.live, limits.burst) == (2.5, 3, Limits().burst)
    for wrong in ("nothing=1", "live", "live=2.5", "live=-1", "clip_seconds=inf", "clip_seconds=nan"):
        with pytest.raises(UsageError, match="limit"):
            Limits.of([wrong])
