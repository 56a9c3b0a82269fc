"""Clips: uploaded into files of our own naming, judged by their header, translated frame by frame, kept for a while."""

from __future__ import annotations

import contextlib
import functools
import logging
import secrets
import shutil
import threading
import time
from collections.abc import AsyncIterator, Generator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path

from ..atomic import clear_scratch, scratch_folder
from ..errors import GantrtError, TruncatedInput, UnsupportedInput
from ..streaming import Item, translated
from ..video import SinkOptions, open_sink
from ..video.files import VideoFile, open_container
from .engines import Served
from .limits import Limits
from .metrics import Metrics
from .problems import Problem, busy, too_large, too_many

log = logging.getLogger("gantrt")

MEDIA_TYPES = {".mp4": "video/mp4", ".webm": "video/webm"}

# By content: the suffix we give, and FFmpeg's name. Nothing that can name other files or addresses.
_KINDS: tuple[tuple[int, bytes, str], ...] = (
    (4, b"ftyp", ".mp4"),
    (0, b"\x1aE\xdf\xa3", ".mkv"),
    (0, b"GIF87a", ".gif"),
    (0, b"GIF89a", ".gif"),
)
_FORMATS = "mov,matroska,gif"
_AT_ONCE = 2  # clips under way; the others wait
_PREFIX = "gantrt-serve-"
_SLACK = 1.0  # seconds a clip may be longer than its header says


@dataclass(eq=False)
class Clip:
    """One clip on its way. Its files lie in its own folder."""

    id: str  # not to be guessed: who knows it may read the clip
    client: str
    engine: Served
    folder: Path
    state: str = "uploading"  # queued, running, done, failed; cancelled ones are forgotten
    frames_done: int = 0
    frames_total: int | None = None
    error: str | None = None
    warning: str | None = None
    result: Path | None = None
    finished: float | None = None  # time.monotonic()
    cancelled: threading.Event = field(default_factory=threading.Event)


class _Cancelled(Exception):
    pass


class Clips:
    """The clips there are. Thread-safe; `close` ends and removes them all."""

    def __init__(self, limits: Limits, metrics: Metrics) -> None:
        self._limits, self._metrics = limits, metrics
        clear_scratch(_PREFIX)  # of servers that were killed
        self._undo = contextlib.ExitStack()
        self._folder: Path | None = None  # in which each clip has its own
        self._clips: dict[str, Clip] = {}
        self._lock = threading.Lock()
        self._probing = threading.Lock()
        self._workers = ThreadPoolExecutor(_AT_ONCE, thread_name_prefix="gantrt-clip")
        for state in ("uploading", "queued", "running", "done", "failed"):
            metrics.clips.labels(state).set_function(functools.partial(self._count, state))

    async def upload(self, client: str, engine: Served, pieces: AsyncIterator[bytes]) -> Clip:
        """Take a clip in and queue it. Raises Problem, and keeps nothing then."""
        clip = self._admit(client, engine)
        try:
            with (clip.folder / "upload").open("xb") as file:
                async for piece in pieces:
                    file.write(piece)
            return clip
        except BaseException:
            self.remove(clip.id)
            raise

    def start(self, clip: Clip) -> None:
        """Judge the uploaded clip, and queue it. Blocks for as long as a header takes. Raises Problem."""
        try:
            with self._probing:
                source = self._judge(clip)
        except BaseException:
            self.remove(clip.id)
            raise
        clip.state = "queued"
        self._workers.submit(self._work, clip, source)

    def find(self, id: str) -> Clip:
        clip = self._clips.get(id)
        if clip is None or clip.state == "uploading":
            raise Problem(404, "not_found", "there is no such clip, or no longer")
        return clip

    def remove(self, id: str) -> None:
        """Stop it if it is under way, and forget it with its files."""
        with self._lock:
            clip = self._clips.pop(id, None)
        if clip is not None:
            clip.cancelled.set()
            if clip.state != "running":  # else its thread does it, when it has let go of the files
                shutil.rmtree(clip.folder, ignore_errors=True)

    def sweep(self) -> None:
        """Remove what was kept long enough."""
        now = time.monotonic()
        for clip in list(self._clips.values()):
            if clip.finished is not None and now - clip.finished > self._limits.clip_kept_seconds:
                self.remove(clip.id)

    def close(self) -> None:
        for id in list(self._clips):
            self.remove(id)
        self._workers.shutdown(wait=True, cancel_futures=True)
        with self._lock:
            self._undo.close()
            self._folder = None

    def _count(self, state: str) -> int:
        return sum(clip.state == state for clip in list(self._clips.values()))

    def _admit(self, client: str, engine: Served) -> Clip:
        with self._lock:
            if not self._limits.clips:
                raise Problem(403, "off", "this server takes no clips")
            mine = sum(clip.client == client for clip in self._clips.values())
            if mine >= self._limits.clips_per_client:
                raise too_many(f"you have {mine} clips here; delete one, or wait until one is removed", 15)
            if len(self._clips) >= self._limits.clips:
                raise busy("there are as many clips here as may be", 15)
            if self._folder is None:
                self._folder = self._undo.enter_context(scratch_folder(_PREFIX))
            id = secrets.token_urlsafe(18)
            clip = self._clips[id] = Clip(id, client, engine, self._folder / id)
            clip.folder.mkdir(mode=0o700)
            return clip

    def _judge(self, clip: Clip) -> Path:
        """The uploaded file under a name with its true suffix, if its header keeps to the limits."""
        upload = clip.folder / "upload"
        with upload.open("rb") as file:
            head = file.read(16)
        suffix = next((suffix for at, magic, suffix in _KINDS if head[at:].startswith(magic)), None)
        if suffix is None:
            raise Problem(415, "unsupported", "this is no MP4, MOV, MKV, WebM or GIF clip")
        source = upload.rename(clip.folder / f"source{suffix}")
        limits = self._limits
        try:
            with open_container(source, _FORMATS) as container:
                pixels = max(
                    (s.codec_context.width * s.codec_context.height for s in container.streams.video), default=0
                )
                seconds = (container.duration or 0) / 1e6
        except UnsupportedInput as error:
            raise Problem(422, "unreadable", "the clip cannot be read") from error
        if not pixels:
            raise Problem(422, "unreadable", "there is no video in the clip")
        most = clip.engine.pixels(limits.clip_pixels)
        if pixels > most:
            raise too_large("a frame of the clip", pixels=most)
        if seconds > limits.clip_seconds + _SLACK:
            raise _too_long(limits)
        return source

    def _work(self, clip: Clip, source: Path) -> None:
        try:
            if clip.cancelled.is_set():
                return
            clip.state = "running"
            self._translate(clip, source)
            clip.state = "done"
        except _Cancelled:
            log.debug("serve: a clip was cancelled")
        except (Problem, GantrtError) as error:
            clip.error = str(error).replace(str(source), "the clip").replace(str(clip.folder), "the server")
            clip.state = "failed"
        except Exception:
            log.exception("serve: unforeseen error in a clip")
            clip.error, clip.state = "the server made an error; its log says which", "failed"
        finally:
            clip.finished = time.monotonic()
            source.unlink(missing_ok=True)
            if clip.cancelled.is_set():
                shutil.rmtree(clip.folder, ignore_errors=True)

    def _translate(self, clip: Clip, source: Path) -> None:
        """As `gantrt translate` does it. A clip that breaks off is kept up to there, with a warning."""
        limits, until = self._limits, Fraction(self._limits.clip_seconds + _SLACK)
        with VideoFile(source, formats=_FORMATS, max_pixels=clip.engine.pixels(limits.clip_pixels)) as opened:
            clip.frames_total = min(opened.frames, limits.clip_frames) if opened.frames else None
            # Browsers play no H.264 of an odd size; VP9 they do.
            suffix = ".webm" if opened.width % 2 or opened.height % 2 else ".mp4"
            result = clip.folder / f"result{suffix}"
            sink = open_sink(result, opened, SinkOptions(overwrite=True))
            begin: Fraction | None = None
            try:
                with contextlib.closing(self._frames(clip, opened)) as items:
                    for item in items:
                        if clip.cancelled.is_set():
                            raise _Cancelled
                        time_base = item.time_base or Fraction(1, 25)
                        seconds = (item.pts or 0) * time_base
                        begin = seconds if begin is None else begin
                        if clip.frames_done >= limits.clip_frames or seconds - begin > until:
                            raise _too_long(limits)
                        sink.write(item)
                        clip.frames_done += 1
                        clip.engine.count(self._metrics, "clip", item.latency_ms / 1e3)
            except TruncatedInput as error:
                if not clip.frames_done:
                    sink.abort()
                    raise
                clip.warning = str(error).replace(str(source), "the clip")
                sink.close(complete=False)
            except BaseException:
                sink.abort()
                raise
            else:
                sink.close()
        clip.result = result

    def _frames(self, clip: Clip, opened: VideoFile) -> Generator[Item, None, None]:
        yield from translated(clip.engine.lane(clip.client, clip.id), opened)


def _too_long(limits: Limits) -> Problem:
    return Problem(
        413, "too_large", f"the clip is too long: at most {limits.clip_seconds:g} s and {limits.clip_frames} frames"
    )
