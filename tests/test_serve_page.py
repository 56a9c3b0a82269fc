"""The page in a real browser: upload, divider, download, camera, errors, keyboard, phones and both colour schemes.

Needs Chromium (GANTRT_CHROMIUM, or `chromium` on the path) and `pip install playwright`; GANTRT_AXE names axe-core's
axe.min.js (npm) for the accessibility rules, GANTRT_SCREENSHOTS a folder that keeps what was seen.
"""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import cv2
import gantrt
import numpy as np
import pytest
from clips import write_clip
from gantrt.serve.limits import Limits
from serving import encoded, make_app, running
from tiny_networks import write_pointwise

playwright = pytest.importorskip("playwright.sync_api", reason="the page's tests need `pip install playwright`")
CHROMIUM = os.environ.get("GANTRT_CHROMIUM") or shutil.which("chromium") or shutil.which("chromium-browser")
AXE = os.environ.get("GANTRT_AXE")
SCREENSHOTS = os.environ.get("GANTRT_SCREENSHOTS")

pytestmark = [
    pytest.mark.browser,
    pytest.mark.skipif(CHROMIUM is None, reason="the page's tests need Chromium: apt-get install chromium"),
]

DESKTOP, PHONE = {"width": 1280, "height": 800}, {"width": 390, "height": 844}


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    """Chromium with a camera that shows a moving test pattern."""
    flags = ["--use-fake-device-for-media-stream", "--use-fake-ui-for-media-stream", "--no-sandbox", "--disable-gpu"]
    with playwright.sync_playwright() as play:
        made = play.chromium.launch(executable_path=CHROMIUM, args=flags)
        yield made
        made.close()


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    engine = write_pointwise(tmp_path_factory.mktemp("engine") / "negative.onnx", -1.0, size=(96, 128))
    limits = Limits(picture_pixels=1_000_000, requests_per_second=1000, burst=1000)
    with gantrt.load(engine, precision="fp32") as translator, running(make_app(translator, limits)) as host:
        yield f"http://{host}"


Open = Callable[..., Any]


@pytest.fixture
def visit(browser: Any, address: str) -> Iterator[Open]:
    """Open the page. Afterwards: it wrote no error to the console, and asked no other server for anything."""
    contexts, wrong = [], []

    def go(url: str = address, expect: tuple[str, ...] = (), **options: Any) -> Any:
        context = browser.new_context(viewport=options.pop("viewport", DESKTOP), permissions=["camera"], **options)
        contexts.append(context)
        page = context.new_page()

        def on_console(message: Any) -> None:
            if message.type in ("error", "warning") and not any(text in message.text for text in expect):
                wrong.append(message.text)

        page.on("console", on_console)
        page.on("pageerror", lambda error: wrong.append(str(error)))
        page.on(
            "request",
            lambda request: (
                None
                if request.url.startswith((address, "blob:", "data:", url.partition("#")[0]))
                else wrong.append(request.url)
            ),
        )
        page.goto(url)
        return page

    yield go
    for context in contexts:
        context.close()
    assert not wrong


def shoot(page: Any, name: str) -> None:
    if SCREENSHOTS:
        page.screenshot(path=str(Path(SCREENSHOTS) / f"{name}.png"), full_page=True)


def gradient(height: int = 300, width: int = 400) -> np.ndarray:
    y, x = np.mgrid[:height, :width]
    return np.dstack([x * 255 // width, y * 255 // height, 255 - x * 255 // width]).astype(np.uint8)


def picture_file(name: str = "gradient.png", image: np.ndarray | None = None) -> dict[str, Any]:
    return {"name": name, "mimeType": "image/png", "buffer": encoded(gradient() if image is None else image)}


HUGE = picture_file("huge.png", np.zeros((1001, 1000, 3), np.uint8))


def upload(page: Any, file: Any) -> None:
    page.locator("#sources").wait_for()
    page.locator("#file").set_input_files(file)


def wait(page: Any, true: str, seconds: float = 20) -> None:
    """Until an expression of JavaScript is true. Playwright's own wait evaluates strings: the page forbids it."""
    end = time.monotonic() + seconds
    while not page.evaluate(true):
        assert time.monotonic() < end, f"it did not come true: {true}"
        page.wait_for_timeout(50)


RUNS = "parseFloat(document.getElementById('fps').textContent) > 1"


def shown(page: Any) -> np.ndarray:
    """What the stage looks like."""
    data = page.locator("#compare").screenshot()
    return cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)[..., ::-1]


def test_a_picture_is_translated_compared_and_downloaded(visit: Open) -> None:
    page = visit()
    upload(page, picture_file())
    page.locator("#download:visible").wait_for()
    wait(page, "document.getElementById('status').textContent.includes('400×300')")
    shoot(page, "picture-desktop")
    # Left of the divider the picture, right of it its negative.
    seen = shown(page)
    height, width = seen.shape[:2]
    expected = cv2.resize(gradient(), (width, height))
    row, left, right = int(height * 0.75), int(width * 0.25), int(width * 0.8)
    assert np.abs(seen[row, left].astype(int) - expected[row, left]).max() < 12
    assert np.abs(seen[row, right].astype(int) - (255 - expected[row, right].astype(int))).max() < 12
    with page.expect_download() as download:
        page.locator("#download").click()
    assert download.value.suggested_filename == "gradient-translated.png"
    got = cv2.imread(str(download.value.path()))[..., ::-1]
    assert got.shape == (300, 400, 3)
    assert np.abs(got.astype(int) - (255 - gradient().astype(int))).mean() < 3


def test_the_divider_moves_by_keyboard_and_by_pointer(visit: Open) -> None:
    page = visit()
    upload(page, picture_file())
    page.locator("#result:visible").wait_for()
    split = page.locator("#split")
    split.focus()
    for key, value in (("ArrowRight", "51"), ("ArrowLeft", "50"), ("Home", "0"), ("End", "100"), ("PageDown", "90")):
        page.keyboard.press(key)
        assert split.input_value() == value
    assert split.get_attribute("aria-valuetext") == "90 % before, 10 % after"
    box = page.locator("#compare").bounding_box()
    page.mouse.move(box["x"] + box["width"] * 0.5, box["y"] + box["height"] * 0.5)
    page.mouse.down()
    page.mouse.move(box["x"] + box["width"] * 0.2, box["y"] + box["height"] * 0.5)
    page.mouse.up()
    assert abs(float(split.input_value()) - 20) <= 1
    clip = page.locator("#after").evaluate("element => getComputedStyle(element).clipPath")
    assert "20%" in clip or "19%" in clip or "21%" in clip


def test_everything_can_be_reached_with_the_tab_key_in_order(visit: Open) -> None:
    page = visit()
    upload(page, picture_file())
    page.locator("#result:visible").wait_for()
    page.evaluate("document.activeElement.blur()")
    reached = []
    for _ in range(12):
        page.keyboard.press("Tab")
        reached.append(page.evaluate("document.activeElement.id || document.activeElement.tagName"))
    assert reached[: reached.index("download") + 1] == ["engine", "theme", "file", "camera", "split", "download"]


def test_a_clip_shows_its_progress_plays_and_is_downloaded(visit: Open, tmp_path: Path) -> None:
    page = visit()
    upload(page, str(write_clip(tmp_path / "clip.webm", range(30), codec="libvpx")))
    page.locator("#player:visible").wait_for(timeout=20_000)
    wait(page, "document.querySelector('#after video').readyState >= 2")
    page.locator("#play").click()
    wait(page, "document.querySelector('#after video').currentTime > 0.2")
    before, after = page.evaluate("[...document.querySelectorAll('video')].map(video => video.currentTime)")
    assert abs(before - after) < 0.2
    page.locator("#play").click()
    wait(page, "document.getElementById('play').textContent === 'Play'")
    shoot(page, "clip-desktop")
    with page.expect_download() as download:
        page.locator("#download").click()
    assert download.value.suggested_filename == "clip-translated.mp4"
    assert Path(download.value.path()).read_bytes()[4:8] == b"ftyp"


def test_the_camera_is_translated_live_with_its_numbers(visit: Open) -> None:
    page = visit()
    page.locator("#sources").wait_for()
    page.locator("#camera").click()
    wait(page, RUNS)
    page.wait_for_timeout(1500)
    shoot(page, "camera-desktop")
    for id in ("p50", "p95", "server"):
        assert 0 < float(page.locator(f"#{id}").text_content().removesuffix(" ms")) < 5000
    assert page.locator("#size").text_content() == "640×360"
    # Before and after are the same frame: everywhere one is the negative of the other.
    pixels = """() => ['before', 'after'].map(id => {
        const canvas = document.querySelector(`#${id} canvas`);
        return [...canvas.getContext('2d').getImageData(0, 0, 640, 360).data].filter((_, i) => i % 404 === 0);
    })"""
    before, after = (np.array(side, float) for side in page.evaluate(pixels))
    assert np.corrcoef(before, 255 - after)[0, 1] > 0.9
    page.locator("#width").select_option("256")
    wait(page, "document.getElementById('size').textContent === '256×144'")
    page.locator("#flight").select_option("1")
    with page.expect_download() as download:
        page.locator("#snapshot").click()
    assert cv2.imread(str(download.value.path())).shape == (144, 256, 3)
    page.locator("#stop").click()
    assert page.locator("#numbers").is_hidden()
    assert page.evaluate("document.activeElement.id") == "camera"


def test_a_camera_that_is_refused_is_said(browser: Any, address: str) -> None:
    context = browser.new_context()
    page = context.new_page()
    page.add_init_script(
        "navigator.mediaDevices.getUserMedia = async () => { throw new DOMException('', 'NotAllowedError') }"
    )
    page.goto(address)
    page.locator("#sources").wait_for()
    page.locator("#camera").click()
    page.locator("#alert:visible").wait_for()
    assert "the browser was told not to give the camera" in page.locator("#alert").text_content()
    assert page.locator("#result").is_hidden()
    context.close()


@pytest.mark.parametrize(
    ("file", "says"),
    [
        ({"name": "x.png", "mimeType": "image/png", "buffer": b"nonsense"}, "no PNG, JPEG or WebP"),
        ({"name": "x.mp4", "mimeType": "video/mp4", "buffer": b"nonsense"}, "no MP4, MOV, MKV"),
        (HUGE, "1 megapixels"),
        ("big.png", "at most 20 MB"),
    ],
    ids=["picture", "clip", "pixels", "bytes"],
)  # fmt: skip
def test_errors_are_said_in_words_and_the_next_file_works(visit: Open, tmp_path: Path, file: Any, says: str) -> None:
    page = visit(expect=("415", "413"))
    if isinstance(file, str):
        (tmp_path / file).write_bytes(bytes(20_000_001))
        file = str(tmp_path / file)
    upload(page, file)
    page.locator("#alert:visible").wait_for()
    assert says in page.locator("#alert").text_content()
    upload(page, picture_file())
    page.locator("#result:visible").wait_for()
    assert page.locator("#alert").is_hidden()


def test_a_server_that_went_away_is_said(visit: Open, browser: Any, tmp_path: Path) -> None:
    with running(make_app()) as host:
        page = visit(f"http://{host}", expect=("ERR_CONNECTION",))
        page.locator("#sources").wait_for()
    upload(page, picture_file())
    page.locator("#alert:visible").wait_for()
    assert "the server cannot be reached" in page.locator("#alert").text_content()


def test_the_token_is_asked_for_and_leaves_no_trace_in_the_address(visit: Open) -> None:
    with running(make_app(token="s3cret")) as host:
        page = visit(f"http://{host}", expect=("401",))
        page.locator("#login:visible").wait_for()
        assert page.evaluate("document.activeElement.id") == "token"
        shoot(page, "login-desktop")
        page.keyboard.type("wrong")
        page.keyboard.press("Enter")
        page.locator("#alert:visible").wait_for()
        page.locator("#token").fill("s3cret")
        page.keyboard.press("Enter")
        page.locator("#sources").wait_for()
        upload(page, picture_file())
        page.locator("#result:visible").wait_for()
        page.locator("#camera").click()  # the WebSocket goes by the cookie
        wait(page, RUNS)
        assert "s3cret" not in page.evaluate("document.cookie")
        other = visit(f"http://{host}/#token=s3cret", expect=("401",))
        other.locator("#sources").wait_for()
        assert other.url == f"http://{host}/"


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("viewport", [DESKTOP, PHONE], ids=["desktop", "phone"])
def test_it_fits_the_screen_and_breaks_no_rule_of_accessibility(
    visit: Open, viewport: dict[str, int], scheme: str, request: pytest.FixtureRequest
) -> None:
    page = visit(expect=("413",), viewport=viewport, color_scheme=scheme, has_touch=viewport is PHONE)
    page.locator("#sources").wait_for()
    name = f"{'phone' if viewport is PHONE else 'desktop'}-{scheme}"

    def look(what: str) -> None:
        shoot(page, f"{what}-{name}")
        assert page.evaluate("document.documentElement.scrollWidth <= innerWidth"), "it scrolls sideways"
        assert _violations(page) == []

    look("start")
    upload(page, HUGE)
    page.locator("#alert:visible").wait_for()
    look("alert")
    upload(page, picture_file())
    page.locator("#result:visible").wait_for()
    look("picture")
    page.locator("#camera").click()
    wait(page, RUNS)
    look("camera")


def _violations(page: Any) -> list[str]:
    """What axe-core finds that is serious or critical; nothing where it is not here."""
    if AXE is None:
        return []
    page.evaluate(Path(AXE).read_text())  # not a script element: the page's own policy would refuse it
    found = page.evaluate("axe.run({ resultTypes: ['violations'] })")["violations"]
    return [f"{v['id']}: {v['nodes'][0]['html']}" for v in found if v["impact"] in ("serious", "critical")]


def test_the_colours_can_be_chosen_and_are_remembered(visit: Open) -> None:
    page = visit(color_scheme="light")
    ground = "getComputedStyle(document.body).backgroundColor"
    light = page.evaluate(ground)
    page.locator("#theme").click()
    dark = page.evaluate(ground)
    assert dark != light
    page.reload()
    assert page.evaluate(ground) == dark
    page.locator("#theme").click()
    assert page.evaluate(ground) == light
