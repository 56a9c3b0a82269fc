"""The API's routes: each takes a request apart, asks who knows, and puts the answer together."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import partial
from typing import Annotated, Any, Literal, TypeVar

from fastapi import APIRouter, Depends, Path, Query, Request, Response, WebSocket
from fastapi.responses import FileResponse
from pydantic import ValidationError
from starlette.requests import HTTPConnection

from . import answers, bodies, clips, metrics, pictures
from .access import Access
from .clips import Clip, Clips
from .engines import Served
from .limits import Limits
from .live import Live, Seats
from .problems import Problem, busy, too_many
from .turns import Full

T = TypeVar("T")

_OCTETS = "application/octet-stream"
_TOKEN_BYTES = 10_000
_PICTURES = tuple(pictures.MEDIA_TYPES.values())
_CLIPS = tuple(clips.MEDIA_TYPES.values())
_WHY = {
    400: "Malformed",
    401: "No token, or the wrong one",
    403: "Not from there",
    404: "Not found",
    408: "Too slow",
    409: "Not ready",
    413: "Too large",
    415: "Not a kind of file we take",
    422: "Cannot be read",
    429: "This client asks for too much; see Retry-After",
    503: "Busy; see Retry-After",
}


@dataclass
class State:
    """What the routes of one app share: `app.state.gantrt`."""

    engines: dict[str, Served]
    limits: Limits
    access: Access
    metrics: metrics.Metrics
    clips: Clips
    seats: Seats
    status: Literal["ok", "starting", "stopping"] = "starting"


def _state(connection: HTTPConnection) -> State:
    state: State = connection.app.state.gantrt
    return state


Shared = Annotated[State, Depends(_state)]


def _engine(state: Shared, engine: Annotated[str, Path(description="its name")]) -> Served:
    if engine not in state.engines:
        known = ", ".join(state.engines)
        raise Problem(404, "not_found", f"there is no engine {engine[:100]!r}; there are {known}")
    return state.engines[engine]


Engine = Annotated[Served, Depends(_engine)]
ClipId = Annotated[str, Path(description="as given at the beginning", pattern="^[A-Za-z0-9_-]{1,64}$")]


def errors(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """For `responses`: what OpenAPI shows of these."""
    return {status: {"model": answers.Error, "description": _WHY[status]} for status in statuses}


def _made(what: str, *media_types: str, status: int = 200) -> dict[int | str, dict[str, Any]]:
    return {status: {"description": what, "content": _binary(*media_types)}}


def _takes(*media_types: str) -> dict[str, Any]:
    return {"requestBody": {"required": True, "content": _binary(*media_types)}}


def _binary(*media_types: str) -> dict[str, Any]:
    return {media_type: {"schema": {"type": "string", "format": "binary"}} for media_type in media_types}


router = APIRouter()


@router.get("/api/engines", summary="What can be asked for, and how much of it")
async def list_engines(state: Shared) -> answers.Engines:
    shown = answers.LimitsShown.model_validate(asdict(state.limits))
    return answers.Engines(engines=[answers.Engine(**e.describe()) for e in state.engines.values()], limits=shown)


@router.post(
    "/api/engines/{engine}/pictures",
    summary="Translate a picture",
    response_class=Response,
    responses=_made("The translation, of the same size", *_PICTURES) | errors(400, 404, 413, 415, 422, 503),
    openapi_extra=_takes(*_PICTURES, _OCTETS),
)
async def translate_picture(
    request: Request,
    state: Shared,
    engine: Engine,
    format: Annotated[Literal["png", "jpeg", "webp"] | None, Query(description="default: as it came")] = None,
) -> Response:
    limits = state.limits
    _check_media_type(request, "image/", _OCTETS)
    data = await bodies.whole(request, "the picture", limits.picture_bytes, limits)
    pictures.picture_kind(data)
    begin = time.perf_counter()
    most = engine.pixels(limits.picture_pixels)
    work = partial(pictures.translate_picture, engine.translator, data, most, format)
    translated, media_type = await _turn(request, engine, work, limits)
    seconds = time.perf_counter() - begin
    engine.count(state.metrics, "picture", seconds)
    return Response(translated, media_type=media_type, headers={"server-timing": f"total;dur={seconds * 1e3:.1f}"})


@router.post(
    "/api/engines/{engine}/clips",
    status_code=202,
    summary="Begin to translate a clip",
    responses=errors(400, 404, 413, 415, 422, 503),
    openapi_extra=_takes("video/mp4", "video/webm", "video/x-matroska", "image/gif", _OCTETS),
)
async def begin_clip(request: Request, response: Response, state: Shared, engine: Engine) -> answers.ClipStatus:
    _check_media_type(request, "video/", "image/gif", _OCTETS)
    pieces = bodies.pieces(request, "the clip", state.limits.clip_bytes, state.limits)
    clip = await state.clips.upload(request.state.client, engine, pieces)
    await asyncio.to_thread(state.clips.start, clip)
    response.headers["location"] = f"/api/clips/{clip.id}"
    return _status(clip)


@router.get("/api/clips/{id}", summary="How far a clip is", responses=errors(404, 422))
async def clip_status(state: Shared, id: ClipId) -> answers.ClipStatus:
    return _status(state.clips.find(id))


@router.get(
    "/api/clips/{id}/result",
    summary="A translated clip",
    response_class=Response,
    responses=_made("The clip", *_CLIPS)
    | _made("A part of it", *_CLIPS, status=206)
    | _made("No such part", "text/plain", status=416)
    | errors(400, 404, 409, 422),
)
async def clip_result(state: Shared, id: ClipId) -> Response:
    clip = state.clips.find(id)
    if clip.state != "done" or clip.result is None:
        raise Problem(409, "not_ready", f"the clip is {clip.state}", retry_after=1)
    media_type = clips.MEDIA_TYPES[clip.result.suffix]
    # Without a name of ours the one that the page gives its download counts.
    return FileResponse(clip.result, media_type=media_type, headers={"content-disposition": "attachment"})


@router.delete("/api/clips/{id}", status_code=204, summary="Stop and forget a clip", responses=errors(404, 422))
async def delete_clip(state: Shared, id: ClipId) -> None:
    await asyncio.to_thread(state.clips.remove, state.clips.find(id).id)


@router.websocket("/api/engines/{engine}/live")
async def live(socket: WebSocket, state: Shared, engine: Engine, keep: Annotated[int, Query(ge=1)] = 1) -> None:
    client, keep = socket.state.client, min(keep, state.limits.live_keep)
    with state.seats.take(client):
        await socket.accept()
        await Live(socket, engine, client, state.limits, state.metrics, keep).run()


@router.post(
    "/api/session",
    status_code=204,
    summary="Log in: a cookie for the token",
    responses=errors(400, 413, 415, 422),
    openapi_extra={
        "requestBody": {
            "required": True,
            "content": {"application/json": {"schema": answers.Token.model_json_schema()}},
        }
    },
)
async def log_in(request: Request, response: Response, state: Shared) -> None:
    _check_media_type(request, "application/json")
    body = await bodies.whole(request, "the token", _TOKEN_BYTES, state.limits)  # FastAPI would read without end
    try:
        token = answers.Token.model_validate_json(body)
    except ValidationError as error:
        raise Problem(422, "unreadable", 'log in with {"token": "..."}') from error
    if value := state.access.log_in(request.state.client, token.token):
        response.headers["set-cookie"] = state.access.cookie(value, secure=request.url.scheme == "https")


@router.delete("/api/session", status_code=204, summary="Log out")
async def log_out(request: Request, response: Response, state: Shared) -> None:
    response.headers["set-cookie"] = state.access.cookie("", secure=request.url.scheme == "https")


@router.get("/healthz", summary="Whether the process lives")
async def health() -> answers.Health:
    return answers.Health(status="ok")


@router.get("/readyz", summary="Whether it takes requests", responses={503: {"model": answers.Health}})
async def ready(response: Response, state: Shared) -> answers.Health:
    response.status_code = 200 if state.status == "ok" else 503
    return answers.Health(status=state.status)


@router.get("/metrics", summary="For Prometheus", response_class=Response, responses=_made("As text", "text/plain"))
async def read_metrics(state: Shared) -> Response:
    return Response(state.metrics.text(), headers={"content-type": metrics.CONTENT_TYPE})


async def _turn(request: Request, engine: Served, work: Callable[[], T], limits: Limits) -> T:
    """The result of `work`, done when it is this client's turn; given up when the client goes away. Raises Problem."""
    try:
        job = engine.turns.submit(request.state.client, "pictures", work)
    except Full as full:
        if full.client:
            raise too_many(f"{limits.waiting_per_client} of your pictures wait already", full.retry_after) from full
        raise busy("the engine has too much to do", full.retry_after) from full
    done = asyncio.ensure_future(asyncio.wrap_future(job))
    gone = asyncio.ensure_future(request.receive())  # the body was read: what comes now is that the client left
    try:
        await asyncio.wait((done, gone), timeout=limits.wait_seconds, return_when=asyncio.FIRST_COMPLETED)
        if done.done():
            return done.result()
        if gone.done():
            raise Problem(400, "gone", "the client went away")
        raise busy("the picture waited too long", 5)
    finally:
        gone.cancel()
        done.cancel()  # a job that waits gives its place free; one under way ends, and nobody looks


def _status(clip: Clip) -> answers.ClipStatus:
    return answers.ClipStatus(
        id=clip.id,
        engine=clip.engine.name,
        state=clip.state,  # type: ignore[arg-type]  # never "uploading": `find` and `start` see to that
        frames_done=clip.frames_done,
        frames_total=clip.frames_total,
        error=clip.error,
        warning=clip.warning,
        media_type=clips.MEDIA_TYPES[clip.result.suffix] if clip.result and clip.state == "done" else None,
    )


def _check_media_type(request: Request, *prefixes: str) -> None:
    """A form of another site can send text/plain, never these without asking first. Raises Problem."""
    media_type = request.headers.get("content-type", "").lower()
    if not media_type.startswith(prefixes):
        raise Problem(415, "unsupported", f"Content-Type is {' or '.join(prefixes)}, not {media_type[:100]!r}")
