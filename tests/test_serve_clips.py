"""Clips over HTTP: translated as on the command line, judged before they are decoded, and gone afterwards."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import clips
import gantrt
import httpx
import numpy as np
import pytest
from clips import write_clip
from gantrt.cli import main
from gantrt.serve.limits import Limits
from serving import Negative, client, make_app, until
from tiny_networks import write_pointwise

ROUTE = "/api/engines/negative/clips"
MP4 = {"content-type": "video/mp4"}


@contextmanager
def serving(translator: Any = None, **limits: Any) -> Iterator[httpx.Client]:
    app = make_app(translator, Limits(**limits))
    with client(app) as web:
        web.state = app.state.gantrt  # type: ignore[attr-defined]
        yield web


@pytest.fixture(autouse=True)
def _own_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "temporary").mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "temporary"))


def left(tmp_path: Path) -> list[str]:
    """Files that lie in the folder for temporary ones."""
    return sorted(path.name for path in (tmp_path / "temporary").rglob("*") if path.is_file())


def begin(web: httpx.Client, path: Path) -> dict[str, Any]:
    answer = web.post(ROUTE, content=path.read_bytes(), headers=MP4)
    assert answer.status_code == 202, answer.text
    status: dict[str, Any] = answer.json()
    assert answer.headers["location"] == f"/api/clips/{status['id']}"
    return status


def wait(web: httpx.Client, id: str) -> dict[str, Any]:
    end = time.monotonic() + 20
    while time.monotonic() < end:
        status: dict[str, Any] = web.get(f"/api/clips/{id}").json()
        if status["state"] in ("done", "failed"):
            return status
        time.sleep(0.02)
    raise AssertionError("the clip does not come to its end")


def test_a_clip_is_translated_exactly_as_the_command_line_does_it(tmp_path: Path) -> None:
    engine = write_pointwise(tmp_path / "negative.onnx", -1.0, size=(48, 64))
    source = write_clip(tmp_path / "in.mp4", (0, 1, 2, 5, 9, 10), sound="aac", metadata={"title": "a title"})
    assert main(["translate", "--engine", str(engine), str(source), "-o", str(tmp_path / "cli.mp4"), "-q"]) == 0
    with gantrt.load(engine) as translator, serving(translator) as web:
        status = wait(web, begin(web, source)["id"])
        assert (status["state"], status["frames_done"], status["frames_total"]) == ("done", 6, 6)
        assert (status["error"], status["warning"], status["media_type"]) == (None, None, "video/mp4")
        answer = web.get(f"/api/clips/{status['id']}/result")
        assert answer.headers["content-type"] == "video/mp4"
        assert answer.headers["content-disposition"].startswith("attachment")
        made = tmp_path / "web.mp4"
        made.write_bytes(answer.content)
    for (time_here, here), (time_there, there) in zip(
        clips.frames(made), clips.frames(tmp_path / "cli.mp4"), strict=True
    ):
        assert time_here == time_there
        assert np.array_equal(here, there)
    assert clips.packets(made, "audio") == clips.packets(tmp_path / "cli.mp4", "audio")


def test_a_browser_may_ask_for_parts_of_the_result(tmp_path: Path) -> None:
    with serving() as web:
        id = begin(web, write_clip(tmp_path / "in.mp4"))["id"]
        wait(web, id)
        whole = web.get(f"/api/clips/{id}/result").content
        part = web.get(f"/api/clips/{id}/result", headers={"range": "bytes=10-19"})
        assert (part.status_code, part.content) == (206, whole[10:20])


def test_an_odd_size_becomes_a_format_that_browsers_play(tmp_path: Path) -> None:
    with serving() as web:
        status = wait(
            web, begin(web, write_clip(tmp_path / "in.mkv", range(3), size=(31, 33), pix_fmt="yuv444p"))["id"]
        )
        (tmp_path / "out.webm").write_bytes(web.get(f"/api/clips/{status['id']}/result").content)
    assert status["media_type"] == "video/webm"
    facts = clips.stream(tmp_path / "out.webm")
    assert (facts["codec"], facts["size"], facts["pix_fmt"]) == ("vp9", (31, 33), "yuv420p")


def test_an_animated_gif_is_a_clip(tmp_path: Path) -> None:
    path = tmp_path / "in.gif"
    with av.open(str(path), "w") as out:
        stream = out.add_stream("gif", rate=10)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "rgb8"
        for index in range(4):
            frame = av.VideoFrame.from_ndarray(clips.grey(index), "rgb24").reformat(format="rgb8")
            frame.pts, frame.time_base = index, Fraction(1, 10)
            out.mux(stream.encode(frame))
        out.mux(stream.encode(None))
    with serving() as web:
        status = wait(web, begin(web, path)["id"])
    assert (status["state"], status["frames_done"]) == ("done", 4)


@pytest.mark.parametrize(
    ("make", "status", "code"),
    [
        (lambda path: path.write_bytes(b"ffconcat version 1.0\nfile /etc/passwd\n"), 415, "unsupported"),
        (lambda path: path.write_bytes(b"#EXTM3U\n#EXTINF:1\nfile:///etc/passwd\n"), 415, "unsupported"),
        (lambda path: path.write_bytes(b"\x1aE\xdf\xa3<MPD profiles='urn:mpeg:dash:profile:x'>"), 422, "unreadable"),
        (lambda path: path.write_bytes(b"\0\0\0\x18ftypisom" + bytes(200)), 422, "unreadable"),
        (lambda path: path.write_bytes(b""), 415, "unsupported"),
        (lambda path: write_clip(path, range(51)), 413, "too_large"),
        (lambda path: write_clip(path, range(3), size=(102, 100)), 413, "too_large"),
        (lambda path: path.write_bytes(bytes(50_001)), 413, "too_large"),
    ],
    ids=["ffconcat", "hls", "dash in matroska", "no movie", "empty", "too long", "too large", "too many bytes"],
)  # fmt: skip
def test_what_may_not_be_a_clip_is_refused_and_leaves_no_file(
    tmp_path: Path, make: Any, status: int, code: str
) -> None:
    path = tmp_path / "in.mp4"
    make(path)
    with serving(clip_seconds=1, clip_pixels=10_000, clip_bytes=50_000) as web:
        answer = web.post(ROUTE, content=path.read_bytes(), headers=MP4)
        assert (answer.status_code, answer.json()["error"]["code"]) == (status, code)
        assert left(tmp_path) == []
        assert web.state.clips._clips == {}  # type: ignore[attr-defined]


def test_a_clip_that_is_longer_than_its_header_says_fails(tmp_path: Path) -> None:
    path = write_clip(tmp_path / "in.mp4", range(30))
    with serving(clip_frames=20) as web:
        status = wait(web, begin(web, path)["id"])
        assert status["state"] == "failed"
        assert "too long" in status["error"]
        assert web.get(f"/api/clips/{status['id']}/result").status_code == 409
        until(lambda: left(tmp_path) == [])


def test_a_clip_that_breaks_off_is_kept_with_a_warning_without_a_path(tmp_path: Path) -> None:
    path = write_clip(tmp_path / "in.mp4", range(60), options={"g": "1"})
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with serving() as web:
        status = wait(web, begin(web, path)["id"])
        assert status["state"] == "done"
        assert 0 < status["frames_done"] < 60
        assert "damaged" in status["warning"] or "cut off" in status["warning"]
        assert "/" not in status["warning"]
        assert web.get(f"/api/clips/{status['id']}/result").status_code == 200


def test_deleting_stops_the_work_and_removes_the_files(tmp_path: Path) -> None:
    gate = threading.Event()
    with serving(Negative(gate=gate)) as web:
        id = begin(web, write_clip(tmp_path / "in.mp4", range(50)))["id"]
        until(lambda: web.get(f"/api/clips/{id}").json()["state"] == "running")
        assert web.get(f"/api/clips/{id}/result").headers["retry-after"] == "1"
        assert web.delete(f"/api/clips/{id}").status_code == 204
        assert web.get(f"/api/clips/{id}").status_code == 404
        gate.set()
        until(lambda: left(tmp_path) == [])


def test_a_clip_is_removed_after_a_while(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gantrt.serve.app._SWEEP_SECONDS", 0.05)
    with serving(clip_kept_seconds=0.3) as web:
        id = begin(web, write_clip(tmp_path / "in.mp4", range(3)))["id"]
        until(lambda: web.get(f"/api/clips/{id}").status_code == 404)
        assert left(tmp_path) == []


def test_the_end_of_the_server_removes_everything(tmp_path: Path) -> None:
    with serving(Negative(seconds=0.05)) as web:
        wait(web, begin(web, write_clip(tmp_path / "in.mp4", range(3)))["id"])
        begin(web, write_clip(tmp_path / "long.mp4", range(100)))
        assert left(tmp_path)
    assert list((tmp_path / "temporary").iterdir()) == []


def test_an_upload_that_breaks_off_leaves_nothing(tmp_path: Path) -> None:
    def half() -> Iterator[bytes]:
        yield write_clip(tmp_path / "in.mp4").read_bytes()[:1000]
        raise ConnectionError

    with serving() as web:
        with pytest.raises(ConnectionError):
            web.post(ROUTE, content=half(), headers=MP4)
        until(lambda: not web.state.clips._clips)  # type: ignore[attr-defined]
        assert left(tmp_path) == []


def test_clips_are_counted_for_each_client_and_may_be_switched_off(tmp_path: Path) -> None:
    data = write_clip(tmp_path / "in.mp4", range(3)).read_bytes()
    with serving(clips_per_client=2) as web:
        answers = [web.post(ROUTE, content=data, headers=MP4) for _ in range(3)]
        assert [answer.status_code for answer in answers] == [202, 202, 429]
        assert answers[2].headers["retry-after"]
    with serving(clips=0) as web:
        answer = web.post(ROUTE, content=data, headers=MP4)
        assert (answer.status_code, answer.json()["error"]["code"]) == (403, "off")


def test_a_long_clip_leaves_live_and_pictures_their_turns(tmp_path: Path) -> None:
    from serving import PNG, encoded, picture

    with serving(Negative(seconds=0.02)) as web:
        id = begin(web, write_clip(tmp_path / "in.mp4", range(200)))["id"]
        until(lambda: web.get(f"/api/clips/{id}").json()["frames_done"] > 2)
        begun = time.perf_counter()
        for _ in range(5):
            assert (
                web.post("/api/engines/negative/pictures", content=encoded(picture()), headers=PNG).status_code == 200
            )
        assert (time.perf_counter() - begun) / 5 < 0.15
        assert web.get(f"/api/clips/{id}").json()["state"] == "running"


@pytest.mark.parametrize("id", ["x", "..", "..%2f..%2fetc", "a" * 65, "%00"])
def test_ids_that_were_never_given_lead_nowhere(id: str) -> None:
    with serving() as web:
        for path in (f"/api/clips/{id}", f"/api/clips/{id}/result"):
            assert web.get(path).status_code in (404, 422)
