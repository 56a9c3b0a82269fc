"""The Ray examples with two replicas and two workers on this machine. Needs `pip install 'ray[serve,data]'`."""

from __future__ import annotations

import importlib.util
import os
import socket
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from gantrt.video.images import Picture, read_picture, write_picture
from serving import PNG, decoded, encoded, picture
from tiny_networks import write_pointwise

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(importlib.util.find_spec("ray") is None, reason="needs `pip install 'ray[serve,data]'`"),
]
EXAMPLES = Path(__file__).resolve().parent.parent / "examples"


@pytest.fixture(scope="module")
def cluster() -> Iterator[Any]:
    """Two cores, and nothing that listens to other machines."""
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    import ray

    sys.path.insert(0, str(EXAMPLES))
    here = os.environ.get("PYTHONPATH", "")
    ray.init(
        num_cpus=4,  # replicas and Ray's own actors; it counts, it does not pin
        include_dashboard=False,
        object_store_memory=200 << 20,
        runtime_env={"env_vars": {"PYTHONPATH": f"{EXAMPLES}:{here}"}},
        log_to_driver=False,
    )
    yield ray
    ray.shutdown()
    sys.path.remove(str(EXAMPLES))


def test_two_replicas_answer_with_one_session_and_live_connections_stay_apart(cluster: Any, tmp_path: Path) -> None:
    import ray_serve
    from gantrt.serve.frames import RAW, Message
    from ray import serve
    from websockets.sync.client import connect

    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    engine = write_pointwise(tmp_path / "negative.onnx", -1.0, size=(24, 32))
    serve.start(http_options={"host": "127.0.0.1", "port": port})
    try:
        serve.run(ray_serve.application(str(engine), replicas=2, token="s3cret"))
        with httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=30) as web:
            assert web.get("/api/engines").status_code == 401
            assert web.post("/api/session", json={"token": "s3cret"}).status_code == 204
            image = picture()
            replicas = set()
            for _ in range(60):
                answer = web.post("/api/engines/negative/pictures", content=encoded(image), headers=PNG)
                assert answer.status_code == 200, answer.text
                assert np.array_equal(decoded(answer.content), 255 - image)
                replicas.add(web.get("/api/replica").json())
                if len(replicas) == 2:
                    break
            assert len(replicas) == 2
            assert (
                web.post("/api/engines/negative/clips", content=b"x", headers={"content-type": "video/mp4"}).status_code
                == 403
            )
        bearer = {"authorization": "Bearer s3cret"}
        address = f"ws://127.0.0.1:{port}/api/engines/negative/live"
        with (
            connect(address, additional_headers=bearer, proxy=None) as one,
            connect(address, additional_headers=bearer, proxy=None) as two,
        ):
            for sequence in range(20):
                frames = [picture(seed, 24, 32) for seed in (sequence, 100 + sequence)]
                for connection, frame in zip((one, two), frames, strict=True):
                    connection.send(Message(RAW, sequence, frame.tobytes(), 32, 24).pack())
                for connection, frame in zip((one, two), frames, strict=True):
                    data = connection.recv(timeout=20)
                    assert isinstance(data, bytes)
                    got = Message.unpack(data)
                    assert (got.sequence, bytes(got.picture)) == (sequence, (255 - frame).tobytes())
    finally:
        serve.shutdown()


def test_a_folder_is_translated_by_two_workers_and_continued(cluster: Any, tmp_path: Path) -> None:
    import ray_data

    engine = write_pointwise(tmp_path / "negative.onnx", -1.0, size=(24, 32))
    for n in range(40):
        write_picture(tmp_path / "in" / f"{n % 4}" / f"{n}.png", Picture(picture(n)))
    (tmp_path / "in" / "broken.png").write_bytes(b"nonsense")
    said = ray_data.translate(str(engine), str(tmp_path / "in"), str(tmp_path / "out"), workers=2)
    assert [Path(path).name for path in said] == ["broken.png"]
    for n in range(40):
        made = read_picture(tmp_path / "out" / f"{n % 4}" / f"{n}.png").image
        assert np.array_equal(made, 255 - picture(n))
    again = ray_data.translate(str(engine), str(tmp_path / "in"), str(tmp_path / "out"), workers=2)
    assert sorted(set(again.values()))[-1] == "skipped"
    assert len(again) == 41
