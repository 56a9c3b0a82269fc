"""Which encoder a name means, and what is said where its hardware is not here."""

from __future__ import annotations

import av
import pytest
from gantrt.errors import DeviceUnavailable, UsageError
from gantrt.video import encoders
from gantrt.video.encoders import ENCODERS, HARDWARE, find_encoder, quality


@pytest.mark.parametrize("name", ENCODERS)
def test_codecs_people_name_have_their_encoder_and_a_quality(name: str) -> None:
    codec = find_encoder(name, 64, 64)
    assert codec.name == ENCODERS[name]
    assert quality(codec, 31)["crf"] == "31"


@pytest.mark.parametrize("name", [name for name in encoders._QUALITY if name.endswith(("nvenc", "qsv"))])
def test_crf_turns_the_dial_a_hardware_encoder_has(name: str) -> None:
    changed = set(quality(av.Codec(name, "w"), 33).items()) - set(quality(av.Codec(name, "w"), None).items())
    assert changed in ({("cq", "33")}, {("global_quality", "33")})


def test_hardware_that_is_not_here_is_said_in_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(encoders, "_refusal", lambda *_: "no device")
    for name in (*HARDWARE, "h264_nvenc"):
        with pytest.raises(DeviceUnavailable, match="no device") as caught:
            find_encoder(name, 64, 64)
        assert caught.value.exit_code == 4
        assert "\n" not in str(caught.value)


def test_the_first_hardware_encoder_that_opens_is_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(encoders, "_refusal", lambda codec, *_: None if codec.name.endswith("qsv") else "no device")
    assert find_encoder("hevc-hw", 64, 64).name == "hevc_qsv"


def test_a_real_encoder_is_asked_whether_it_opens() -> None:
    assert encoders._refusal(av.Codec("libx264", "w"), 64, 64) is None
    assert encoders._refusal(av.Codec("libx264", "w"), 0, 64)


def test_names_that_mean_nothing_are_usage_errors() -> None:
    for name, text in (("nonsense", "h264-hw"), ("aac", "is for audio")):
        with pytest.raises(UsageError, match=text):
            find_encoder(name, 64, 64)
    with pytest.raises(UsageError, match="no constant quality"):
        quality(av.Codec("ffv1", "w"), 3)
