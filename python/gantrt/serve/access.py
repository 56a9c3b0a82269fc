"""Who may come in: the token and its cookie, and the rules that keep other web pages from using a visitor's browser.

A page from elsewhere can make a browser send requests here (cross-site requests, WebSocket hijacking) and, by
pointing its own name at our address, even read the answers (DNS rebinding). Browsers say where a request comes from,
so: a name in `Host` must be one of ours, and `Origin`, where there is one, must be the host itself.
"""

from __future__ import annotations

import hashlib
import hmac
import ipaddress
import socket
import time
from collections.abc import Iterable, Mapping
from urllib.parse import urlsplit

from .limits import Rate
from .problems import Problem, too_many

COOKIE = "gantrt_session"
_SESSION_SECONDS = 12 * 3600
_ATTEMPTS_PER_SECOND, _ATTEMPTS_AT_ONCE = 1.0, 10.0
_SAFE = ("GET", "HEAD", "OPTIONS")


class Access:
    """token  what a client must know; None: nothing. hosts: names we are reached by, besides addresses; "*": any."""

    def __init__(self, token: str | None = None, hosts: Iterable[str] = ()) -> None:
        self._token = token.encode() if token else None
        self._digest = hashlib.sha256(self._token or b"").digest()
        self._hosts = {"localhost", socket.gethostname().lower(), *(host.lower() for host in hosts)}
        self._wrong = Rate(_ATTEMPTS_PER_SECOND, _ATTEMPTS_AT_ONCE)
        self._epoch = time.time() - time.monotonic()

    @property
    def needs_token(self) -> bool:
        return self._token is not None

    def check_host(self, host: str) -> None:
        """Addresses are always right: a rebound name is never one. Raises Problem."""
        name = _name(host)
        if "*" not in self._hosts and name not in self._hosts and not _is_address(name):
            raise Problem(
                403, "wrong_host", f"this server is not called {name[:100]!r}; start it with --allow-host to add a name"
            )

    def check_origin(self, method: str, headers: Mapping[str, str]) -> None:
        """For what changes something, and for WebSockets (method "CONNECT"). Raises Problem."""
        if method in _SAFE:
            return
        origin, host = headers.get("origin"), headers.get("host", "")
        foreign = origin is not None and _host_and_port(urlsplit(origin).netloc, origin) != _host_and_port(host, origin)
        if foreign or headers.get("sec-fetch-site") in ("cross-site", "same-site"):
            raise Problem(403, "wrong_origin", "pages of other sites may not use this server")

    def check_token(self, client: str, headers: Mapping[str, str], cookies: Mapping[str, str]) -> None:
        """`Authorization: Bearer TOKEN`, or the cookie of a session. Raises Problem."""
        if self._token is None:
            return
        scheme, _, given = headers.get("authorization", "").partition(" ")
        if scheme.lower() == "bearer" and given:
            self.log_in(client, given.strip())
        elif not self._session_is_good(cookies.get(COOKIE, "")):
            raise Problem(401, "no_token", "this server wants a token: send Authorization: Bearer TOKEN, or log in")

    def log_in(self, client: str, given: str) -> str:
        """The value of a session's cookie for the right token. Raises Problem; after many wrong ones all must wait."""
        if self._token is None:
            return ""
        if wait := self._wrong.wait(client):  # before the look: else every guess would be looked at
            raise too_many("too many wrong tokens", wait)
        if hmac.compare_digest(hashlib.sha256(given.encode("utf-8", "replace")).digest(), self._digest):
            until = str(int(self._now()) + _SESSION_SECONDS)
            return f"{until}.{self._signature(until)}"
        self._wrong.take(client)
        raise Problem(401, "wrong_token", "this is not the token the server was started with")

    def cookie(self, value: str, *, secure: bool) -> str:
        """The Set-Cookie header. No script can read it and no other site can make a browser send it."""
        age = _SESSION_SECONDS if value else 0
        return f"{COOKIE}={value}; Max-Age={age}; Path=/; HttpOnly; SameSite=Strict{'; Secure' if secure else ''}"

    def _now(self) -> float:
        """Seconds since 1970, so that replicas agree, by a clock that nobody sets while this server runs."""
        return self._epoch + time.monotonic()

    def _session_is_good(self, cookie: str) -> bool:
        until, _, signature = cookie.partition(".")
        known = hmac.compare_digest(signature.encode(), self._signature(until).encode())
        return known and until.isascii() and until.isdecimal() and int(until) > self._now()

    def _signature(self, until: str) -> str:
        """Made from the token, so that every replica with the same token knows the session."""
        return hmac.new(self._token or b"", b"gantrt session " + until.encode(), hashlib.sha256).hexdigest()


def client_of(address: str | None) -> str:
    """Who counts as one client: an IPv4 address, the /64 of an IPv6 one; "local" where there is none."""
    try:
        ip = ipaddress.ip_address(address or "")
    except ValueError:
        return address or "local"
    if isinstance(ip, ipaddress.IPv6Address):
        return str(ip.ipv4_mapped or ipaddress.ip_network((ip, 64), strict=False).network_address)
    return str(ip)


def _is_address(name: str) -> bool:
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True


def _name(host: str) -> str:
    """`Host` without its port and the brackets of an IPv6 address."""
    if host.startswith("["):
        return host[1:].partition("]")[0]
    return host.partition(":")[0].lower().rstrip(".")


def _host_and_port(netloc: str, origin: str) -> tuple[str, str]:
    port = netloc.rpartition("]")[2].partition(":")[2]
    return _name(netloc), port or ("443" if origin.startswith("https:") else "80")
