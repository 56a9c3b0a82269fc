"""Live connections on a real server: whose frame it is, which is translated, what is given up, what is survived."""

from __future__ import annotations

import contextlib
import json
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import gantrt
import numpy as np
import pytest
from gantrt.serve.frames import HEADER, JPEG, PNG, RAW, Message
from gantrt.serve.limits import Limits
from serving import Negative, decoded, encoded, make_app, picture, running, until
from tiny_networks import write_pointwise
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.sync.client import ClientConnection, connect


@contextmanager
def live(address: str, query: str = "", **options: Any) -> Iterator[ClientConnection]:
    path = f"ws://{address}/api/engines/negative/live{query}"
    with connect(path, compression=None, max_size=None, proxy=None, **options) as socket:
        yield socket


def raw(sequence: int, frame: np.ndarray | None = None) -> bytes:
    """A frame; without one, one that says its number in every pixel."""
    if frame is None:
        frame = np.full((4, 6, 3), sequence % 256, np.uint8)
    return Message(RAW, sequence, frame.tobytes(), frame.shape[1], frame.shape[0]).pack()


def reply(socket: ClientConnection) -> Message:
    data = socket.recv(timeout=10)
    assert isinstance(data, bytes), data
    return Message.unpack(data)


def complaint(socket: ClientConnection) -> dict[str, Any]:
    data = socket.recv(timeout=10)
    assert isinstance(data, str)
    found: dict[str, Any] = json.loads(data)["error"]
    return found


@pytest.fixture(scope="module")
def address() -> Iterator[str]:
    with running(make_app(limits=Limits(live_messages_per_second=1e6))) as made:
        yield made


@pytest.mark.parametrize("form", [RAW, PNG])
def test_a_frame_comes_back_translated_with_its_number(address: str, form: int) -> None:
    frame = picture()
    with live(address) as socket:
        socket.send(raw(41, frame) if form == RAW else Message(form, 41, encoded(frame)).pack())
        got = reply(socket)
    image = np.frombuffer(got.picture, np.uint8).reshape(24, 32, 3) if form == RAW else decoded(bytes(got.picture))
    assert (got.sequence, got.format, got.width, got.height, got.replaced) == (41, form, 32, 24, 0)
    assert got.microseconds > 0
    assert np.array_equal(image, 255 - frame)


@pytest.mark.parametrize("keep", [1, 2, 4])
def test_as_many_frames_in_flight_as_are_kept_are_never_lost_and_stay_in_order(address: str, keep: int) -> None:
    with live(address, f"?keep={keep}") as socket:
        for sequence in range(keep - 1):
            socket.send(raw(sequence))
        for sequence in range(200):
            socket.send(raw(sequence + keep - 1))
            got = reply(socket)
            assert (got.sequence, got.replaced, got.picture[0]) == (sequence, 0, 255 - sequence)


def test_the_newest_frame_takes_the_place_of_the_one_that_waits() -> None:
    gate = threading.Event()
    negative = Negative(gate=gate)
    with running(make_app(negative)) as address, live(address) as socket:
        socket.send(raw(1))
        until(lambda: negative.calls == 1)
        for sequence in range(2, 9):
            socket.send(raw(sequence))
        time.sleep(0.3)  # until they have arrived
        gate.set()
        got = [reply(socket) for _ in range(2)]
        assert [(one.sequence, one.replaced) for one in got] == [(1, 0), (8, 6)]
        assert negative.calls == 2


def test_frames_of_many_clients_are_neither_lost_nor_mixed(tmp_path: Any) -> None:
    path = write_pointwise(tmp_path / "negative.onnx", -1.0, size=(8, 8))
    wrong: list[Any] = []

    def talk(address: str, number: int) -> None:
        with live(address) as socket:
            for sequence in range(40):
                frame = np.random.default_rng([number, sequence]).integers(0, 256, (8, 8, 3), np.uint8)
                socket.send(raw(sequence, frame))
                got = reply(socket)
                if got.sequence != sequence or bytes(got.picture) != (255 - frame).tobytes():
                    wrong.append((number, sequence))
        done.append(number)

    done: list[int] = []
    with gantrt.load(path, streams=2, precision="fp32") as translator, running(make_app(translator)) as address:
        threads = [threading.Thread(target=talk, args=(address, number)) for number in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(30)
    assert not wrong
    assert sorted(done) == list(range(8))


def test_a_client_that_floods_leaves_the_others_their_turns() -> None:
    app = make_app(Negative(seconds=0.01), Limits(live_messages_per_second=1000))
    with running(app) as address, live(address) as flood, live(address) as modest:
        stop = threading.Event()

        def pour() -> None:
            sequence = 0
            while not stop.is_set():
                sequence += 1
                flood.send(raw(sequence))
                time.sleep(0.002)

        def look() -> None:
            with contextlib.suppress(ConnectionClosed):
                drain(flood)

        threads = [threading.Thread(target=pour, daemon=True), threading.Thread(target=look, daemon=True)]
        for thread in threads:
            thread.start()
        latencies = []
        for sequence in range(20):
            begin = time.perf_counter()
            modest.send(raw(sequence))
            assert reply(modest).sequence == sequence
            latencies.append(time.perf_counter() - begin)
        stop.set()
        threads[0].join(5)
        replaced = app.state.gantrt.metrics.replaced.labels("negative")._value.get()
    assert replaced > 50
    assert sorted(latencies)[10] < 0.08, (
        "at most: the frame under way, the one that is ready, one of the flood, its own"
    )


@pytest.mark.parametrize(
    ("data", "code"),
    [
        ("text", "malformed"),
        (b"", "malformed"),
        (bytes(200), "malformed"),
        (Message(JPEG, 5, b"no picture at all").pack(), "unsupported"),
        (Message(RAW, 5, b"123", 60_000, 60_000).pack(), "too_large"),
        (Message(PNG, 5, encoded(picture())[:-30]).pack(), "unreadable"),
    ],
)
def test_a_malformed_message_is_complained_about_and_the_next_one_served(address: str, data: Any, code: str) -> None:
    with live(address) as socket:
        socket.send(data)
        said = complaint(socket)
        assert said["code"] == code
        assert said.get("sequence") == (5 if len(data) > 3 and data[4:5] == b"\5" else None)
        socket.send(raw(6))
        assert reply(socket).sequence == 6


def test_who_sends_nothing_but_nonsense_is_closed(address: str) -> None:
    with live(address) as socket:
        send_until_closed(socket, [b"nonsense"] * 20)
        assert ending(socket) == (1008, "too many errors")


def test_a_message_that_is_too_large_ends_the_connection_unread() -> None:
    with running(make_app(limits=Limits(frame_bytes=1000))) as address:
        with live(address) as socket:
            socket.send(raw(1, np.zeros((10, 40, 3), np.uint8)))
            assert ending(socket)[0] == 1009
        with live(address) as socket:
            socket.send(raw(1))
            assert reply(socket).sequence == 1


def test_an_engine_that_fails_ends_the_connection_and_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    class Broken(Negative):
        def __call__(self, frame: np.ndarray) -> np.ndarray:
            raise RuntimeError("/secret/place")

    with running(make_app(Broken())) as address, live(address) as socket:
        socket.send(raw(1))
        assert ending(socket) == (1011, "the engine failed")
    assert "/secret/place" in caplog.text


def test_an_idle_connection_is_closed() -> None:
    with running(make_app(limits=Limits(live_idle_seconds=0.2))) as address, live(address) as socket:
        assert ending(socket) == (1001, "idle")


@pytest.mark.parametrize(
    ("options", "status"),
    [
        ({"origin": "http://evil.example"}, 403),
        ({}, 401),
        ({"additional_headers": {"authorization": "Bearer wrong"}}, 401),
        ({"additional_headers": {"cookie": "gantrt_session=1.2"}}, 401),
    ],
    ids=["hijacked", "no token", "wrong token", "forged cookie"],
)
def test_who_may_not_come_in_is_told_so_before_the_upgrade(options: dict[str, Any], status: int) -> None:
    with running(make_app(token="s3cret")) as address:
        with pytest.raises(InvalidStatus) as refused, live(address, **options):
            pass
        assert refused.value.response.status_code == status
        assert json.loads(refused.value.response.body)["error"]["code"]
        with live(address, additional_headers={"authorization": "Bearer s3cret"}, origin=f"http://{address}") as socket:
            socket.send(raw(1))
            assert reply(socket).sequence == 1


def test_a_rebound_name_is_refused(address: str) -> None:
    there = socket.create_connection(address.split(":"))
    with pytest.raises(InvalidStatus) as refused, live("evil.example", sock=there):
        pass
    assert refused.value.response.status_code == 403


def test_who_sends_without_end_is_closed() -> None:
    with running(make_app(limits=Limits(live_messages_per_second=10))) as address, live(address) as socket:
        send_until_closed(socket, [raw(sequence) for sequence in range(30)])
        assert ending(socket) == (1008, "too many messages")


def send_until_closed(socket: ClientConnection, messages: list[bytes]) -> None:
    """The server may close before all are sent: from then on sending raises."""
    with contextlib.suppress(ConnectionClosed):
        for message in messages:
            socket.send(message)


def ending(socket: ClientConnection) -> tuple[int, str]:
    """Read to the end; how the server closed."""
    with pytest.raises(ConnectionClosed) as closed:
        drain(socket)
    assert closed.value.rcvd is not None
    return closed.value.rcvd.code, closed.value.rcvd.reason


def drain(socket: ClientConnection) -> None:
    while True:
        socket.recv(timeout=10)


def test_connections_are_counted_and_seats_come_free_again() -> None:
    app = make_app(limits=Limits(live_per_client=2))
    with running(app) as address:
        with live(address), live(address):
            with pytest.raises(InvalidStatus) as refused, live(address):
                pass
            assert refused.value.response.status_code == 429
            assert refused.value.response.headers["retry-after"]
        until(lambda: not app.state.gantrt.seats._taken)
        with live(address) as socket:
            socket.send(raw(1))
            assert reply(socket).sequence == 1


def test_an_unknown_engine_is_refused(address: str) -> None:
    with pytest.raises(InvalidStatus) as refused, connect(f"ws://{address}/api/engines/nix/live", proxy=None):
        pass
    assert refused.value.response.status_code == 404


def test_clients_that_vanish_in_the_middle_leave_nothing_behind() -> None:
    gate = threading.Event()
    negative = Negative(gate=gate)
    app = make_app(negative)
    turns = app.state.gantrt.engines["negative"].turns
    with running(app) as address:
        for _ in range(10):
            with live(address) as socket:
                socket.send(raw(1))
                socket.send(raw(2))
                until(lambda: negative.calls)
                socket.socket.close()  # no farewell
        until(lambda: turns.waiting == 0)
        gate.set()
        until(lambda: not app.state.gantrt.seats._taken)
        with live(address) as socket:
            socket.send(raw(3))
            assert reply(socket).sequence == 3


def test_who_does_not_read_its_replies_is_let_go() -> None:
    app = make_app(limits=Limits(send_seconds=0.3, live_messages_per_second=1e6))
    with running(app) as address, socket.create_connection(address.split(":")) as dumb:
        dumb.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        upgrade = (
            "GET /api/engines/negative/live HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: Upgrade"
        )
        key = "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13"
        dumb.sendall(f"{upgrade}\r\n{key}\r\n\r\n".encode())
        assert dumb.recv(4096).startswith(b"HTTP/1.1 101")
        big = raw(1, np.zeros((600, 800, 3), np.uint8))
        frame = b"\x82\xff" + len(big).to_bytes(8, "big") + bytes(4) + big  # a mask of zeros changes nothing
        dumb.settimeout(0.5)
        with contextlib.suppress(OSError):
            dumb.sendall(frame * 100)
        until(lambda: not app.state.gantrt.seats._taken)


def test_a_server_that_ends_says_so_to_its_clients() -> None:
    with closing_server() as (address, end), live(address) as socket:
        socket.send(raw(1))
        assert reply(socket).sequence == 1
        end()
        assert ending(socket)[0] == 1012


@contextmanager
def closing_server() -> Iterator[tuple[str, Any]]:
    manager = running(make_app())
    address = manager.__enter__()
    end = threading.Thread(target=lambda: manager.__exit__(None, None, None))
    yield address, end.start
    end.join(20)


def test_the_header_is_what_javascript_writes() -> None:
    """camera.js: setUint8(0, 1), setUint8(1, 1), setUint32(4, sequence, little-endian), then the JPEG at 16."""
    assert HEADER.size == 16
    data = bytearray(16) + b"jpeg"
    data[0], data[1], data[4:8] = 1, 1, (77).to_bytes(4, "little")
    message = Message.unpack(bytes(data))
    assert (message.format, message.sequence, bytes(message.picture)) == (JPEG, 77, b"jpeg")


def test_numbers_of_live_frames_are_kept() -> None:
    app = make_app()
    with running(app) as address, live(address) as socket:
        for sequence in range(3):
            socket.send(raw(sequence))
            reply(socket)
        text = app.state.gantrt.metrics.text().decode()
    assert 'gantrt_frames_total{engine="negative",kind="live"} 3.0' in text
    assert "gantrt_live_connections 1.0" in text
