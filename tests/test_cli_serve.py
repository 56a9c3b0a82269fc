"""gantrt serve as a process: what it refuses to start with, how it ends, and what it leaves behind."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import ssl
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest
from clips import write_clip
from gantrt.cli import main
from gantrt.serve.frames import RAW, Message
from serving import until
from tiny_networks import write_pointwise
from websockets.sync.client import connect


@pytest.fixture(scope="module")
def engine(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_pointwise(tmp_path_factory.mktemp("engine") / "tiny one.onnx", -1.0, size=(24, 32))


@contextmanager
def process(engine: Path, *options: str, **environment: str) -> Iterator[tuple[subprocess.Popen[str], str, Path]]:
    """A running `gantrt serve`, its address, and its folder for temporary files."""
    temporary = engine.parent / f"tmp{time.monotonic_ns()}"
    temporary.mkdir()
    command = [sys.executable, "-m", "gantrt", "serve", "--engine", str(engine), "--port", "0", *options]
    env = os.environ | environment | {"TMPDIR": str(temporary)}
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=env) as running:
        assert running.stderr is not None
        lines: list[str] = []
        for line in running.stderr:
            lines.append(line)
            if " at http" in line:
                break
        else:
            raise AssertionError("".join(lines))
        address = lines[-1].split(" at ")[1].strip().rstrip("/")
        running.said = "".join(lines)  # type: ignore[attr-defined]
        try:
            yield running, address, temporary
        finally:
            running.kill()


def up(address: str) -> bool:
    try:
        return httpx.get(f"{address}/readyz").status_code == 200
    except httpx.HTTPError:
        return False


@pytest.mark.parametrize(("sig", "code"), [(signal.SIGTERM, 0), (signal.SIGINT, 130)])
def test_a_signal_ends_it_in_order_and_leaves_no_file(engine: Path, tmp_path: Path, sig: int, code: int) -> None:
    with process(engine, "--limit", "clip_seconds=600") as (running, address, temporary):
        until(lambda: up(address))
        data = write_clip(tmp_path / "in.mp4", range(400)).read_bytes()
        route = f"{address}/api/engines/tiny-one/clips"
        assert httpx.post(route, content=data, headers={"content-type": "video/mp4"}).status_code == 202
        assert list(temporary.iterdir())
        running.send_signal(sig)
        _, said = running.communicate(timeout=20)
        assert running.returncode == code, said
        assert list(temporary.iterdir()) == []
        assert "Traceback" not in said
        assert said.splitlines()[-1] == ("gantrt: ended" if code == 0 else "gantrt: interrupted")


def test_a_second_ctrl_c_does_not_leave_files_either(engine: Path, tmp_path: Path) -> None:
    with process(engine, "--limit", "clip_seconds=600") as (running, address, temporary):
        until(lambda: up(address))
        data = write_clip(tmp_path / "in.mp4", range(400)).read_bytes()
        httpx.post(f"{address}/api/engines/tiny-one/clips", content=data, headers={"content-type": "video/mp4"})
        running.send_signal(signal.SIGINT)
        running.send_signal(signal.SIGINT)
        running.communicate(timeout=20)
        assert running.returncode == 130
        assert list(temporary.iterdir()) == []


def test_the_token_of_the_environment_counts_and_is_never_written(engine: Path) -> None:
    with process(engine, "-v", GANTRT_TOKEN="s3cret-token") as (running, address, _):
        until(lambda: up(address))
        assert httpx.get(f"{address}/api/engines").status_code == 401
        bearer = {"authorization": "Bearer s3cret-token"}
        assert httpx.get(f"{address}/api/engines", headers=bearer).status_code == 200
        httpx.post(f"{address}/api/session", json={"token": "s3cret-token"})
        running.terminate()
        _, said = running.communicate(timeout=20)
        assert "GET /api/engines 200" in said
        assert "s3cret" not in said + running.said  # type: ignore[attr-defined]


@pytest.mark.skipif(shutil.which("openssl") is None, reason="makes its certificate with openssl")
def test_with_a_certificate_it_speaks_https_and_its_cookies_are_secure(engine: Path, tmp_path: Path) -> None:
    files = {"-out": str(tmp_path / "certificate.pem"), "-keyout": str(tmp_path / "key.pem")}
    command = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"]
    command += ["-subj", "/CN=localhost", "-addext", "subjectAltName=IP:127.0.0.1", *sum(files.items(), ())]
    subprocess.run(command, check=True, capture_output=True)
    trust = ssl.create_default_context(cafile=files["-out"])
    options = ["--certificate", files["-out"], "--key", files["-keyout"], "--token", "s3cret"]
    with process(engine, *options) as (_, address, _), httpx.Client(base_url=address, verify=trust) as web:
        assert address.startswith("https://")
        until(lambda: web.get("/readyz").status_code == 200)
        assert "; Secure" in web.post("/api/session", json={"token": "s3cret"}).headers["set-cookie"]
        live = f"{address.replace('https', 'wss')}/api/engines/tiny-one/live"
        cookie = "; ".join(f"{name}={value}" for name, value in web.cookies.items())
        with connect(live, ssl=trust, additional_headers={"cookie": cookie}, origin=address, proxy=None) as socket:
            socket.send(Message(RAW, 1, bytes(24 * 32 * 3), 32, 24).pack())
            data = socket.recv(timeout=10)
    assert isinstance(data, bytes)
    assert set(Message.unpack(data).picture) == {255}


@pytest.mark.parametrize(
    ("options", "code", "says"),
    [
        (["--host", "0.0.0.0"], 2, "give --token"),
        (["--host", "::"], 2, "give --token"),
        (["--token", ""], 2, "token"),
        (["--token", "zwölf"], 2, "ASCII"),
        (["--limit", "nothing=1"], 2, "limit 'nothing'"),
        (["--certificate", "x"], 2, "go together"),
        (["--host", "203.0.113.7", "--no-token"], 1, "cannot listen on 203.0.113.7"),
        (["--port", "70000"], 1, "cannot listen"),
        (["--engine", "missing.onnx"], 3, "missing.onnx"),
        (["--engine", "tiny-one=other.onnx"], 2, "given twice"),
        (["--certificate", "no.pem", "--key", "no.pem"], 1, "certificate or key cannot be read"),
    ],
)
def test_what_makes_no_sense_is_refused_in_one_line(
    engine: Path, capsys: pytest.CaptureFixture[str], options: list[str], code: int, says: str
) -> None:
    assert main(["serve", "--engine", str(engine), "--port", "0", *options]) == code
    said = capsys.readouterr().err.splitlines()
    assert says in said[-1]


def test_a_port_that_is_taken_is_said(engine: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        assert main(["serve", "--engine", str(engine), "--port", str(port)]) == 1
    assert f"cannot listen on 127.0.0.1 port {port} (Address already in use)" in capsys.readouterr().err


@pytest.mark.parametrize("library", ["fastapi", "uvicorn", "websockets", "prometheus_client"])
def test_without_its_libraries_it_says_how_to_get_them(
    engine: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, library: str
) -> None:
    import importlib.util

    find = importlib.util.find_spec
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None if name == library else find(name))
    assert main(["serve", "--engine", str(engine)]) == 4
    assert f"{library} not installed; pip install 'gantrt[serve]'" in capsys.readouterr().err


def test_help_needs_none_of_them() -> None:
    code = "import sys; sys.modules['fastapi'] = sys.modules['uvicorn'] = None; from gantrt.cli import main; "
    code += "main(['serve', '-h'])"
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert "--token" in said


def test_engines_are_named_by_their_files_or_by_hand(engine: Path) -> None:
    from gantrt.cli.serve import _named

    assert list(_named([str(engine), "b=x/y=z.onnx", "./é.onnx"])) == ["tiny-one", "b", "engine"]
