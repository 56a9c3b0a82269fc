"""Messages of a live connection: what is packed is what is unpacked, and what is wrong is refused before decoding."""

from __future__ import annotations

import struct

import cv2
import numpy as np
import pytest
from gantrt.serve.frames import HEADER, JPEG, PNG, RAW, WEBP, Message, translate_frame
from gantrt.serve.pictures import translate_picture
from gantrt.serve.problems import Problem
from serving import decoded, encoded, picture

MOST = 10_000


def negative(frame: np.ndarray) -> np.ndarray:
    return 255 - frame


def never(frame: np.ndarray) -> np.ndarray:
    raise AssertionError("it should have been refused")


def test_the_header_is_the_sixteen_bytes_it_is_documented_to_be() -> None:
    data = Message(JPEG, 0x01020304, b"xy", 0x0506, 0x0708, 0x090A, 0x0B0C0D0E).pack()
    assert data.hex() == "01010a0904030201060508070e0d0c0b" + b"xy".hex()
    assert Message.unpack(data).pack() == data


@pytest.mark.parametrize(
    "data",
    [b"", b"\1", bytes(HEADER.size), bytes(17), struct.pack("<BBHIHHI", 1, 4, 0, 1, 0, 0, 0) + b"x", b"\2" + bytes(40)],
)
def test_what_is_no_message_is_refused(data: bytes) -> None:
    with pytest.raises(Problem, match=r"version|header"):
        Message.unpack(data)


def test_raw_frames_come_back_exactly() -> None:
    frame = picture()
    reply = translate_frame(negative, Message(RAW, 7, frame.tobytes(), 32, 24), MOST)
    assert (reply.format, reply.sequence, reply.width, reply.height) == (RAW, 7, 32, 24)
    assert np.array_equal(np.frombuffer(reply.picture, np.uint8).reshape(24, 32, 3), 255 - frame)


@pytest.mark.parametrize(("form", "suffix", "off"), [(PNG, ".png", 0), (JPEG, ".jpg", 6), (WEBP, ".webp", 12)])
def test_encoded_frames_come_back_in_their_format(form: int, suffix: str, off: int) -> None:
    frame = np.full((24, 32, 3), (200, 100, 50), np.uint8)
    reply = translate_frame(negative, Message(form, 1, encoded(frame, suffix)), MOST)
    assert (reply.format, reply.width, reply.height) == (form, 32, 24)
    assert np.abs(decoded(bytes(reply.picture)).astype(int) - (255 - frame)).max() <= off


@pytest.mark.parametrize(
    ("message", "status"),
    [
        (Message(RAW, 1, b"x" * 11, 2, 2), 400),
        (Message(RAW, 1, b"x", 0, 0), 400),
        (Message(RAW, 1, b"x", 65535, 65535), 413),
        (Message(JPEG, 1, encoded(picture())), 415),
        (Message(PNG, 1, b"nonsense"), 415),
        (Message(PNG, 1, encoded(picture())[:-20]), 422),
        (Message(PNG, 1, encoded(picture(height=101, width=100))), 413),
    ],
    ids=["length", "empty", "claims 4 gigapixels", "not what it says", "no picture", "cut off", "too large"],
)
def test_frames_that_are_wrong_are_refused_before_the_network_sees_them(message: Message, status: int) -> None:
    with pytest.raises(Problem) as caught:
        translate_frame(never, message, MOST)
    assert caught.value.status == status


def test_a_jpeg_of_endless_scans_is_refused_before_it_is_decoded() -> None:
    progressive = cv2.imencode(".jpg", picture(), [cv2.IMWRITE_JPEG_PROGRESSIVE, 1])[1].tobytes()
    at = progressive.rindex(b"\xff\xda")
    again = progressive[at:-2] * 200
    translate_picture(negative, progressive, MOST)
    with pytest.raises(Problem, match="scans"):
        translate_picture(never, progressive[:-2] + again + b"\xff\xd9", MOST)
