"""The API against its own OpenAPI document: schemathesis makes up requests, good and bad, and checks every answer.

Needs `pip install schemathesis`.
"""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
from clips import write_clip
from gantrt.serve.limits import Limits
from serving import make_app, running

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(importlib.util.find_spec("schemathesis") is None, reason="needs `pip install schemathesis`"),
]

# Checked as well: a wrong token (401), an answer's JSON against its schema, its status against the documented ones,
# methods that do not exist (405), data that does not fit (4xx) and data that does (2xx).
HOOKS = """
import schemathesis
from hypothesis import strategies
from pathlib import Path
here = Path(__file__).parent
files = {"image/png": "x.png", "image/jpeg": "x.jpg", "image/webp": "x.webp", "image/gif": "x.gif"}
files |= dict.fromkeys(("video/mp4", "video/webm", "video/x-matroska"), "x.mp4")
for media_type, name in files.items():
    schemathesis.openapi.media_type(media_type, strategies.just((here / name).read_bytes()))
"""
# Bytes that are no picture, a clip that is not done, an engine that is busy: refusing them is right.
CONFIG = """
[checks.positive_data_acceptance]
expected-statuses = ["2xx", 401, 403, 404, 409, 413, 415, 416, 422, 429, 503]
[checks.missing_required_header]
expected-statuses = ["4xx"]
"""


@pytest.mark.parametrize("token", [None, "s3cret"])
def test_every_answer_is_one_the_document_promises(tmp_path: Path, token: str | None) -> None:
    for suffix in (".png", ".jpg", ".webp", ".gif"):
        cv2.imwrite(str(tmp_path / f"x{suffix}"), np.full((8, 8, 3), 99, np.uint8))
    write_clip(tmp_path / "x.mp4", range(2))
    (tmp_path / "hooks.py").write_text(HOOKS)
    (tmp_path / "schemathesis.toml").write_text(CONFIG)
    limits = Limits(requests_per_second=1e6, burst=1_000_000, clips=100_000, clips_per_client=100_000)
    app = make_app(limits=limits, token=token)
    with running(app) as address:
        command = [sys.executable, "-m", "schemathesis.cli", "--config-file", "schemathesis.toml", "run"]
        command += [f"http://{address}/openapi.json", "--checks", "all", "--max-examples", "20", "--no-color"]
        command += ["--header", f"Authorization: Bearer {token}"] if token else []
        environment = os.environ | {
            "SCHEMATHESIS_HOOKS": "hooks",
            "PYTHONPATH": f"{tmp_path}:{os.environ['PYTHONPATH']}",
        }
        ended = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    print(ended.stdout[-8000:])
    assert ended.returncode == 0, ended.stdout[-3000:] + ended.stderr[-1000:]
