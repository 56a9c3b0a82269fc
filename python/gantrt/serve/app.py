"""The ASGI app: its parts put together."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Iterable, Mapping
from functools import partial
from typing import Any

from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException
from starlette.routing import Match, Route

from .. import __version__
from ..translator import Translator
from .access import Access
from .clips import Clips
from .door import Door
from .engines import Served, named
from .limits import Limits
from .live import Seats
from .metrics import Metrics
from .page import assets
from .problems import Problem
from .routes import State, errors, router

_SWEEP_SECONDS = 2.0


def create_app(
    engines: Mapping[str, Translator],
    limits: Limits | None = None,
    *,
    token: str | None = None,
    hosts: Iterable[str] = (),
) -> FastAPI:
    """The web page and the API over these engines, as an ASGI app for any server.

    engines  name -> Translator (color="rgb"), which the caller closes when the app has ended
    token    what clients must know; None: nothing
    hosts    names the app is reached by, besides localhost, this machine's name and addresses; "*": any
    Raises UsageError.
    """
    limits = limits or Limits()
    served = named(engines, limits)
    metrics = Metrics(__version__, {name: partial(_waiting, engine) for name, engine in served.items()})
    state = State(served, limits, Access(token, hosts), metrics, Clips(limits, metrics), Seats(limits, metrics))
    app = FastAPI(
        title="gantrt",
        version=__version__,
        summary="Image-to-image GANs: pictures, clips and live frames",
        description="Live frames go over the WebSocket `/api/engines/{engine}/live`, which OpenAPI cannot describe.",
        lifespan=_lifespan,
        docs_url=None,  # their pages load scripts from elsewhere
        redoc_url=None,
        redirect_slashes=False,
        responses=errors(401, 403, 408, 429),  # what the door may answer to anything
    )
    app.state.gantrt = state
    app.include_router(router)
    page = assets()
    for path, asset in page.items():
        app.add_api_route(path, asset.response, methods=["GET", "HEAD"], include_in_schema=False)
    app.add_middleware(Door, access=state.access, limits=limits, metrics=metrics, page=page)
    app.exception_handler(HTTPException)(_http_error)
    app.exception_handler(RequestValidationError)(_invalid)
    _name_engines(app.openapi(), sorted(served))
    return app


@contextlib.asynccontextmanager
async def _lifespan(app: FastAPI) -> AsyncIterator[None]:
    state: State = app.state.gantrt
    sweeping = asyncio.ensure_future(_sweep(state.clips))
    state.status = "ok"
    try:
        yield
    finally:
        state.status = "stopping"
        sweeping.cancel()
        await asyncio.to_thread(state.clips.close)
        for engine in state.engines.values():
            await asyncio.to_thread(engine.turns.close)


async def _sweep(clips: Clips) -> None:
    while True:
        await asyncio.sleep(_SWEEP_SECONDS)
        await asyncio.to_thread(clips.sweep)


def _waiting(engine: Served) -> float:
    return float(engine.turns.waiting)


def _name_engines(schema: dict[str, Any], names: list[str]) -> None:
    """OpenAPI's document, which FastAPI makes once and keeps, is told which engines there are."""
    for methods in schema["paths"].values():
        for operation in methods.values():
            for parameter in operation.get("parameters", ()):
                if parameter["name"] == "engine":
                    parameter["schema"]["enum"] = names


async def _http_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    codes = {400: "malformed", 404: "not_found", 405: "no_such_method"}
    problem = Problem(error.status_code, codes.get(error.status_code, "http"), str(error.detail))
    headers = problem.headers | {name.lower(): value for name, value in (error.headers or {}).items()}
    if error.status_code == 405:
        headers["allow"] = ", ".join(_methods(request))
    return Response(problem.body, problem.status, headers)


def _methods(request: Request) -> list[str]:
    """Of all routes of the path: the router names those of the first only."""
    methods: set[str] = set()
    for route in (*router.routes, *request.app.routes):
        if isinstance(route, Route) and route.matches(request.scope)[0] is not Match.NONE:
            methods |= route.methods or set()
    return sorted(methods)


async def _invalid(_: Request, error: Exception) -> Response:
    assert isinstance(error, RequestValidationError)
    first = error.errors()[0]
    where = ".".join(str(part) for part in first["loc"])
    return JSONResponse(Problem(422, "unreadable", f"{where}: {first['msg']}").to_json(), 422)
