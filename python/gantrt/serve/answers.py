"""The shapes of the API's JSON, as OpenAPI shows them."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, Field


class Engine(BaseModel):
    name: str
    family: str | None
    direction: str | None
    height: int | None = Field(description="of the network; null: any. Answers always have their picture's size")
    width: int | None
    channels: int
    precision: str
    device: str


class LimitsShown(BaseModel):
    picture_bytes: int
    picture_pixels: int
    frame_bytes: int
    frame_pixels: int
    clip_bytes: int
    clip_pixels: int
    clip_seconds: float
    clip_frames: int
    clips: int


class Engines(BaseModel):
    engines: list[Engine]
    limits: LimitsShown


class ClipStatus(BaseModel):
    id: str
    engine: str
    state: Literal["queued", "running", "done", "failed"]
    frames_done: int
    frames_total: int | None = Field(description="null where the clip does not say")
    error: str | None = None
    warning: str | None = Field(default=None, description="the clip broke off; what came before it is kept")
    media_type: str | None = Field(default=None, description="of the result, when it is done")


class Token(BaseModel):
    token: str = Field(min_length=1, max_length=1000)


class Health(BaseModel):
    status: Literal["ok", "starting", "stopping"]


class ErrorDetail(BaseModel):
    code: str = Field(description="for programs: too_large, unsupported, unreadable, busy, too_many, ...")
    message: str = Field(description="for people")
    retry_after: int | None = Field(default=None, description="seconds")


class Error(BaseModel):
    error: ErrorDetail
