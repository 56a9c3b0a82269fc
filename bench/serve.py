"""Does a server lose, mix or hoard frames when many clients send live?

    python bench/serve.py [--clients 50] [--seconds 60] [--fps 10] [--in-flight 2] [--json F]

`gantrt serve` with a network of one multiplication (y = -x, so that every answer is known to the bit) runs in its own
process. Each client sends random frames, raw, 64x64, at --fps, no more than --in-flight at once, and compares every
answer with the frame of its number. Latency is from sending to having the answer; memory is the server's resident set,
once a second, and the slope of it. --warmup seconds of the same come first and do not count. With --abuse further
clients misbehave meanwhile: floods, garbage, half requests, vanishing. Ends with exit code 6 if a frame was lost or
mixed, or memory grew.

Writes bench/results/serve_cpu.json.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import random
import subprocess
import sys
import tempfile
import time
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from datetime import date
from pathlib import Path

import httpx
import numpy as np
from gantrt.serve.frames import JPEG, RAW, Message
from gantrt.timing import Summary
from machine import machine
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed, InvalidHandshake

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE.parent / "tests"))
import tiny_networks  # noqa: E402

SIDE = 64
MOST_GROWTH = 3.0  # MB a minute; what a minute's noise is
PATIENCE = 20.0


@dataclass
class Seen:
    """What the clients saw."""

    sent: int = 0
    right: int = 0
    mixed: int = 0
    complaints: int = 0
    replaced: int = 0
    milliseconds: list[float] = field(default_factory=list)
    server_milliseconds: list[float] = field(default_factory=list)


async def client(address: str, number: int, until: float, period: float, in_flight: int, seen: Seen) -> None:
    """Sends a frame each period; one that is due while enough are in flight is sent when there is room."""
    numbers = np.random.default_rng(number)
    await asyncio.sleep(period * number / 50)
    waiting: deque[tuple[int, bytes, float]] = deque()
    address = f"ws://{address}/api/engines/negative/live?keep={in_flight}"
    async with connect(address, compression=None, max_size=None, proxy=None) as socket:
        sequence, due = number * 100_000, time.perf_counter()

        async def receive() -> None:
            data = await asyncio.wait_for(socket.recv(), PATIENCE)
            now = time.perf_counter()
            if isinstance(data, str):
                seen.complaints += 1
                return
            got = Message.unpack(data)
            expected, negative, when = waiting.popleft()
            seen.replaced += got.replaced
            if got.sequence == expected and bytes(got.picture) == negative:
                seen.right += 1
                seen.milliseconds.append((now - when) * 1e3)
                seen.server_milliseconds.append(got.microseconds / 1e3)
            else:
                seen.mixed += 1

        while time.perf_counter() < until:
            while len(waiting) >= in_flight:
                await receive()
            if (left := due - time.perf_counter()) > 0:
                if not waiting:
                    await asyncio.sleep(left)
                else:
                    await receive()
                continue
            frame = numbers.integers(0, 256, SIDE * SIDE * 3, np.uint8)
            sequence, due = sequence + 1, max(due + period, time.perf_counter() - period)
            waiting.append((sequence, (255 - frame).tobytes(), time.perf_counter()))
            await socket.send(Message(RAW, sequence, frame.tobytes(), SIDE, SIDE).pack())
            seen.sent += 1
        while waiting:
            await receive()


async def abuse(address: str, until: float) -> dict[str, int]:
    """What servers meet: floods, garbage, half requests, and clients that vanish. How often each was done."""
    done = {"floods": 0, "garbage": 0, "half requests": 0, "vanished": 0}
    host, port = address.split(":")
    live = f"ws://{address}/api/engines/negative/live"
    while time.perf_counter() < until:
        with suppress(ConnectionClosed, InvalidHandshake, OSError, TimeoutError):
            kind = random.choice(list(done))
            if kind in ("half requests", "vanished"):
                _, writer = await asyncio.open_connection(host, int(port))
                head = "POST /api/engines/negative/pictures HTTP/1.1\r\nHost: localhost\r\nContent-Type: image/png\r\n"
                writer.write(head.encode() + (b"Content-Length: 1000\r\n\r\nx" if kind == "vanished" else b""))
                await writer.drain()
                await asyncio.sleep(0.5)
                writer.close()
            else:
                async with connect(live, compression=None, proxy=None) as socket:
                    for i in range(400 if kind == "floods" else 19):
                        nonsense = bytes(100) if i % 2 else Message(JPEG, i, b"no picture").pack()
                        frame = Message(RAW, i, bytes(SIDE * SIDE * 3), SIDE, SIDE).pack()
                        await socket.send(frame if kind == "floods" else nonsense)
            done[kind] += 1
        await asyncio.sleep(0.05)
    return done


async def load(address: str, options: argparse.Namespace, seconds: float) -> tuple[Seen, dict[str, int]]:
    seen = Seen()
    until = time.perf_counter() + seconds
    clients = [
        client(address, number, until, 1 / options.fps, options.in_flight, seen) for number in range(options.clients)
    ]
    abused = abuse(address, until) if options.abuse else asyncio.sleep(0, {})
    results = await asyncio.gather(*clients, abused, return_exceptions=True)
    for error in results:
        if isinstance(error, BaseException):
            print(f"a client failed: {error!r}", file=sys.stderr)
    last = results[-1]
    return seen, last if isinstance(last, dict) else {}


class Memory:
    """The resident set of a process, in MB, once a second."""

    def __init__(self, pid: int) -> None:
        self._path = Path(f"/proc/{pid}/status")
        self.samples: list[float] = []

    async def watch(self) -> None:
        while True:
            line = next(line for line in self._path.read_text().splitlines() if line.startswith("VmRSS"))
            self.samples.append(int(line.split()[1]) / 1024)
            await asyncio.sleep(1)

    def growth(self) -> float:
        """MB a minute: the slope of the least squares line."""
        return float(np.polyfit(np.arange(len(self.samples)), self.samples, 1)[0] * 60) if self.samples[2:] else 0.0


@contextmanager
def server() -> Iterator[tuple[str, int]]:
    """host:port and process id of `gantrt serve`."""
    with tempfile.TemporaryDirectory() as folder:
        engine = tiny_networks.write_pointwise(Path(folder) / "negative.onnx", -1.0, size=(SIDE, SIDE))
        command = [
            sys.executable,
            "-m",
            "gantrt",
            "serve",
            "--engine",
            str(engine),
            "--precision",
            "fp32",
            "--port",
            "0",
        ]
        with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as running:
            assert running.stderr is not None
            line = next(line for line in running.stderr if " at http://" in line)
            try:
                address = line.split("http://")[1].strip().rstrip("/")
                while httpx.get(f"http://{address}/readyz").status_code != 200:
                    time.sleep(0.1)
                yield address, running.pid
            finally:
                running.terminate()
                running.communicate()
                print(f"the server ended with {running.returncode}", file=sys.stderr)


async def run(options: argparse.Namespace) -> dict[str, object]:
    with server() as (address, pid):
        await load(address, options, options.warmup)
        memory = Memory(pid)
        watching = asyncio.ensure_future(memory.watch())
        begin = time.perf_counter()
        seen, abused = await load(address, options, options.seconds)
        seconds = time.perf_counter() - begin
        watching.cancel()
        alive = httpx.get(f"http://{address}/readyz").status_code == 200
    return {
        "clients": options.clients,
        "seconds": round(seconds, 1),
        "asked_fps_per_client": options.fps,
        "in_flight": options.in_flight,
        "frames": {
            "sent": seen.sent,
            "right": seen.right,
            "lost": seen.sent - seen.right - seen.mixed,
            "mixed": seen.mixed,
            "replaced": seen.replaced,
            "complaints": seen.complaints,
        },
        "frames_per_second": round(seen.right / seconds, 1),
        "latency": shown(seen.milliseconds),
        "of_it_in_the_server": shown(seen.server_milliseconds),
        "memory_mb": {
            "first": round(memory.samples[0], 1),
            "last": round(memory.samples[-1], 1),
            "growth_per_minute": round(memory.growth(), 3),
            "every_ten_seconds": [round(value, 1) for value in memory.samples[::10]],
        },
        "abuse": abused,
        "alive": alive,
    }


def shown(milliseconds: list[float]) -> dict[str, object]:
    summary = Summary.of(milliseconds).to_json()
    return {key: round(value, 2) if isinstance(value, float) else value for key, value in summary.items()}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--clients", type=int, default=50)
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--warmup", type=float, default=20)
    parser.add_argument("--fps", type=float, default=10, help="frames a second of each client")
    parser.add_argument("--in-flight", type=int, default=2)
    parser.add_argument("--abuse", action="store_true", help="with clients that misbehave")
    parser.add_argument("--json", type=Path, default=HERE / "results" / "serve_cpu.json")
    options = parser.parse_args()
    here = machine()
    found = asyncio.run(run(options))
    report = {
        "what": "live frames over WebSockets, each answer compared bit by bit with the frame of its number",
        "command": " ".join(["python", "bench/serve.py", *sys.argv[1:]]),
        "date": date.today().isoformat(),
        "machine": here,
        "network": f"y = -x, {SIDE}x{SIDE}, fp32; clients and server share the machine",
        **found,
    }
    options.json.write_text(json.dumps(report, indent=2) + "\n")
    print(json.dumps(found, indent=2))
    frames = found["frames"]
    memory = found["memory_mb"]
    assert isinstance(frames, dict)
    assert isinstance(memory, dict)
    wrong = frames["lost"] or frames["mixed"] or not found["alive"] or memory["growth_per_minute"] > MOST_GROWTH
    return 6 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
