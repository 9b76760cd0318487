"""The page, driven in headless Chromium: what it shows, saves, says to screen readers, and whom it talks to."""

import base64
import csv
import io
import re
import shutil
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from PIL import Image

import films
from browser import open_chromium, requested
from mien import tables
from mien.draw import COLOURS
from mien.reader import Reader
from mien.web import app as web
from mien.web.guard import Door
from mien.web.limits import Limits
from mutants import encode
from serving import in_thread, pictures

pytestmark = pytest.mark.slow
PATIENCE = 150  # s; a busy machine is no failure
TOKEN = "a-token-of-the-tests"


@pytest.fixture(scope="module")
def camera_film(hopper: np.ndarray, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What the fake camera films: a portrait that sways, as a stream of JPEGs."""
    path = tmp_path_factory.mktemp("camera") / "film.mjpeg"
    frames = [Image.new("RGB", (640, 480), (90, 110, 130)) for _ in range(10)]
    for number, frame in enumerate(frames):
        frame.paste(Image.fromarray(hopper).resize((358, 420)), (80 + 4 * number, 40))
    path.write_bytes(b"".join(encode(frame, "JPEG", quality=90) for frame in frames))
    return path


@pytest.fixture(scope="module")
def chromium(camera_film: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """One browser for all tests, with a camera that plays the film."""
    flags = (
        "use-fake-device-for-media-stream", "use-fake-ui-for-media-stream", f"use-file-for-fake-video-capture={camera_film}",
    )  # fmt: skip
    with open_chromium(tmp_path_factory.mktemp("chromium"), *flags) as opened:
        yield opened


@pytest.fixture(scope="module")
def address(tiny_model: Path) -> Iterator[str]:
    with in_thread(web.create_app(Reader(tiny_model))) as client:
        yield str(client.base_url).rstrip("/")


@pytest.fixture
def page(chromium: Any, address: str) -> Iterator[Any]:
    """The page, freshly opened. Afterwards: no word on the console, no request to anybody but its server."""
    for kind in ("browser", "performance"):
        chromium.get_log(kind)
    chromium.get(address)
    until(lambda: find(chromium, "#model").text)
    yield chromium
    assert [entry["message"] for entry in chromium.get_log("browser")] == []
    asked = requested(chromium)
    assert asked and not [url for url in asked if not url.startswith((f"{address}/", f"blob:{address}/"))], asked


def find(browser: Any, selector: str) -> Any:
    return browser.find_element("css selector", selector)


def until(holds: Callable[[], Any]) -> Any:
    """What `holds` gives once it is true."""
    end = time.monotonic() + PATIENCE
    while not (result := holds()):
        assert time.monotonic() < end, "it never came to hold"
        time.sleep(0.1)
    return result


def upload(browser: Any, *paths: Path) -> None:
    find(browser, "#files").send_keys("\n".join(map(str, paths)))
    until(lambda: not find(browser, "#stop").is_displayed() and find(browser, "#status").text)


def downloaded(browser: Any, name: str) -> bytes:
    path = browser.downloads / name
    until(lambda: path.exists() and path.stat().st_size)
    data = path.read_bytes()
    path.unlink()
    return data


def canvas_pixels(browser: Any) -> np.ndarray:
    """The picture as the page shows it, RGB uint8."""
    url = browser.execute_script("return document.querySelector('figure canvas').toDataURL('image/png')")
    return np.array(Image.open(io.BytesIO(base64.b64decode(url.partition(",")[2]))).convert("RGB"))


@pytest.fixture
def portrait(hopper: np.ndarray, tmp_path: Path) -> Path:
    path = tmp_path / "hopper.png"
    Image.fromarray(hopper).save(path)
    return path


def read_by_api(address: str, path: Path) -> list[dict[str, Any]]:
    files = pictures((path.name, path.read_bytes()))
    return httpx.post(f"{address}/v1/read", files=files, timeout=PATIENCE, trust_env=False).json()


def assert_framed(pixels: np.ndarray, row: dict[str, Any], scale: float = 1.0) -> None:
    """The box's four sides are where the row says, in the expression's colour, and nothing is drawn two lines inside."""
    left, top = row["x"] * scale, row["y"] * scale
    right, bottom = left + row["width"] * scale, top + row["height"] * scale
    x, y = (left + right) / 2, (top + bottom) / 2
    colour = COLOURS[row["expression"]]
    for place in ((left, y), (right, y), (x, bottom), (left, bottom - 9)):
        near = pixels[round(place[1]) - 2 : round(place[1]) + 3, round(place[0]) - 2 : round(place[0]) + 3]
        assert (np.abs(near.astype(int) - colour).sum(axis=2) < 12).any(), place
    for place in ((left + 16, y), (right - 16, y), (x, bottom - 16)):
        assert (np.abs(pixels[round(place[1]), round(place[0])].astype(int) - colour)).sum() > 12, place


def test_a_picture_with_its_boxes_bars_and_words(page: Any, address: str, portrait: Path) -> None:
    upload(page, portrait)
    (row,) = read_by_api(address, portrait)
    assert_framed(canvas_pixels(page), row)
    summary = f"{row['expression']} {row['confidence']:.0%}"
    assert find(page, "#status").text == f"hopper.png: 1 face: {summary}"
    assert find(page, ".face caption").text.startswith(f"Face 1: {summary}, then ")
    cells = [line.split() for line in find(page, ".face tbody").text.split("\n")]
    words = [word for line in cells for word in line]
    assert words[::2] == list(COLOURS) and words[1::2] == [f"{row[f'p_{name}'] * 100:.0f}%" for name in COLOURS]
    widths = page.execute_script("return [...document.querySelectorAll('.fill')].map(f => parseFloat(f.style.width))")
    assert widths == pytest.approx([row[f"p_{name}"] * 100 for name in COLOURS], abs=0.01)
    assert find(page, "figure canvas").get_attribute("aria-label") == f"hopper.png: 1 face: {summary}"


@pytest.mark.parametrize(
    ("format", "orientation", "stored"),
    [
        ("JPEG", 6, Image.Transpose.ROTATE_90), ("WEBP", 6, Image.Transpose.ROTATE_90),
        ("WEBP", 3, Image.Transpose.ROTATE_180), ("WEBP", 5, Image.Transpose.TRANSPOSE),
        ("WEBP", 8, Image.Transpose.ROTATE_270), ("WEBP", 2, Image.Transpose.FLIP_LEFT_RIGHT),
    ],
)  # fmt: skip
def test_a_turned_photograph_is_framed_upright(
    page: Any, address: str, hopper: np.ndarray, tmp_path: Path, format: str, orientation: int, stored: Image.Transpose
) -> None:
    path = tmp_path / f"turned.{format.lower()}"
    exif = Image.Exif()
    exif[0x0112] = orientation
    path.write_bytes(encode(Image.fromarray(hopper).transpose(stored), format, exif=exif, quality=95))
    upload(page, path)
    pixels = canvas_pixels(page)
    assert pixels.shape == hopper.shape
    assert_framed(pixels, read_by_api(address, path)[0])
    assert np.abs(pixels[:60].astype(int) - hopper[:60]).mean() < 6  # above the face nothing is drawn


def test_the_csv_is_faces_csv(page: Any, address: str, portrait: Path, tmp_path: Path) -> None:
    odd = portrait.rename(portrait.with_name('=1+"1",ü.png'))
    blank = tmp_path / "blank.png"
    Image.new("RGB", (60, 50)).save(blank)
    quoted = shutil.copy(blank, tmp_path / "'=1.png")
    upload(page, odd, blank, quoted)
    find(page, "#csv").click()
    text = downloaded(page, "mien-faces.csv").decode("utf-8")
    expected = tmp_path / "faces.csv"
    table = [{**row, "source": path.name} for path in (odd, blank, quoted) for row in read_by_api(address, path)]
    tables.write_csv(table, expected)
    ours, theirs = (list(csv.reader(io.StringIO(t, newline=""))) for t in (expected.read_bytes().decode(), text))
    assert [[number(cell) for cell in row] for row in theirs] == [[number(cell) for cell in row] for row in ours]
    assert len(theirs) == 4 and text.count("\r\n") == 4
    assert [row[0] for row in theirs[1:]] == ["'" + odd.name, blank.name, "''=1.png"]


def number(cell: str) -> float | str:
    try:
        return float(cell)
    except ValueError:
        return cell


def test_the_annotated_picture(page: Any, address: str, portrait: Path) -> None:
    upload(page, portrait)
    find(page, ".save").click()
    copy = np.array(Image.open(io.BytesIO(downloaded(page, "hopper-mien.png"))).convert("RGB"))
    (row,) = read_by_api(address, portrait)
    assert copy.shape == (600, 512, 3)
    assert_framed(copy, row)
    beside = copy[round(row["y"]) + 40, round(row["x"] + row["width"]) + 12]
    assert beside.max() < 40  # the dark plate of the bars


def test_a_picture_beyond_the_limit_is_sent_reduced(chromium: Any, tiny_model: Path, portrait: Path) -> None:
    """The box is given in px of the original all the same."""
    limits = Limits(pixels=200_000)
    with in_thread(web.create_app(Reader(tiny_model), limits=limits)) as client:
        address = str(client.base_url)
        chromium.get(address)
        until(lambda: find(chromium, "#model").text)
        assert read_by_api(address, portrait)["error"]["code"] == "pixels"  # type: ignore[call-overload]
        upload(chromium, portrait)
        find(chromium, "#csv").click()
        (row,) = csv.DictReader(io.StringIO(downloaded(chromium, "mien-faces.csv").decode()))
    box = {name: float(row[name]) for name in ("x", "y", "width", "height")}
    assert list(box.values()) == pytest.approx([173.8, 119.8, 178.1, 219.4], abs=15)  # as it is found at full size
    pixels = canvas_pixels(chromium)
    assert pixels.shape[0] * pixels.shape[1] <= 200_000
    assert_framed(pixels, {**box, "expression": row["expression"]}, scale=pixels.shape[1] / 512)


def test_pictures_far_from_the_screen_hold_no_pixels(page: Any, hopper: np.ndarray, tmp_path: Path) -> None:
    paths = [tmp_path / f"{number}.png" for number in range(8)]
    for path in paths:
        Image.fromarray(hopper).save(path)
    upload(page, *paths)
    drawn = "return document.querySelectorAll('figure canvas')[arguments[0]].toDataURL().length > 50_000"  # a blank one is short
    until(lambda: page.execute_script(drawn, 0) and not page.execute_script(drawn, 7))
    page.execute_script("document.querySelectorAll('article')[7].scrollIntoView()")
    until(lambda: page.execute_script(drawn, 7) and not page.execute_script(drawn, 0))
    page.execute_script("scrollTo(0, 0)")
    until(lambda: page.execute_script(drawn, 0))
    assert (canvas_pixels(page) > 0).any()


def test_a_picture_that_the_browser_cannot_send_fails_alone(page: Any, portrait: Path, tmp_path: Path) -> None:
    wide = tmp_path / "wide.png"
    Image.new("L", (100_000, 300), 99).save(wide)
    upload(page, wide, portrait)
    assert [item.text for item in page.find_elements("css selector", "h3")] == ["wide.png", "hopper.png"]
    assert find(page, "#status").text == "2 files read; the results are below."


def test_a_video_over_time(page: Any, hopper: np.ndarray, tmp_path: Path) -> None:
    """Two persons, the second from half time on: two numbers that stay, a chart and a row for each."""
    actors = [
        films.Actor(hopper, (0, 0, 1, 1), lambda t: (40 + 100 * t, 60, 0.7)),
        films.Actor(hopper, (0, 0, 1, 1), lambda t: (840, 90, 0.6) if t >= 1 else None),
    ]
    frames = (films.screen(actors, number / 10, (1280, 720)) for number in range(20))
    path = films.write(tmp_path / "two.mp4", frames, rate=10)
    upload(page, path)
    assert find(page, "#status").text == "two.mp4: 10 frames read, 2 faces followed."
    rows = [row.text for row in page.find_elements("css selector", ".tracks tbody tr")]
    assert rows[0].startswith("1 0.0 s 1.8 s 10 ") and rows[1].startswith("2 1.0 s 1.8 s 5 ")
    assert len(page.find_elements("css selector", ".charts canvas[role=img][aria-label]")) == 2
    find(page, "#csv").click()
    table = list(csv.DictReader(io.StringIO(downloaded(page, "mien-faces.csv").decode())))
    assert list(table[0]) == ["source", "frame", "time_s", "track", *tables.COLUMNS[1:]]
    assert [row["track"] for row in table].count("1") == 10 and [row["track"] for row in table].count("2") == 5


def test_a_video_that_fails_part_way_keeps_what_was_read_and_the_next_file_is_read(
    page: Any, hopper: np.ndarray, portrait: Path, tmp_path: Path
) -> None:
    actor = films.Actor(hopper, (0, 0, 1, 1), lambda t: (40, 60, 0.7))
    path = films.write(
        tmp_path / "one.mp4", (films.screen([actor], number / 10, (1280, 720)) for number in range(20)), rate=10
    )
    page.execute_script("""
        const answered = window.fetch;
        let asked = 0;
        const refusal = () => new Response('{"error": {"code": "busy", "reason": "too many faces"}}', {status: 422});
        window.fetch = (path, options) =>
          path === "/v1/read" && ++asked === 5 ? Promise.resolve(refusal()) : answered(path, options);""")
    upload(page, path, portrait)
    assert find(page, "#status").text == "1 of 2 files read, 1 failed; the results are below."
    assert find(page, ".failed").text == "error: too many faces"
    (row,) = page.find_elements("css selector", ".tracks tbody tr")
    assert row.text.startswith("1 0.0 s 0.6 s 4 ")
    find(page, "#csv").click()
    table = list(csv.DictReader(io.StringIO(downloaded(page, "mien-faces.csv").decode())))
    assert [row["status"] for row in table] == ["ok"] * 4 + ["error: too many faces", "ok"]


def test_the_camera(page: Any) -> None:
    find(page, "#camera").click()
    until(lambda: len(page.find_elements("css selector", ".tracks tbody tr")) == 1)
    until(lambda: find(page, "#status").text.startswith("Camera: 1 face: "))  # it is said every few seconds only
    assert find(page, "#camera").get_attribute("aria-disabled") == "true"
    find(page, "#stop").click()
    until(lambda: find(page, "#status").text.startswith("Camera stopped: "))
    assert (
        find(page, ".face caption").text.startswith("Face 1: ")
        and find(page, "#camera").get_attribute("aria-disabled") is None
    )


def test_of_the_camera_the_last_half_hour_is_kept(page: Any) -> None:
    """Here each frame comes 100 s after the one before."""
    assert find(page, "#camera-note").text.startswith("Of the camera the last 30 minutes are kept")
    page.execute_script("let now = 0; performance.now = () => (now += 100_000);")
    find(page, "#camera").click()
    until(lambda: any(span[1] > 3000 for span in shown_spans(page)))
    find(page, "#stop").click()
    until(lambda: find(page, "#status").text.startswith("Camera stopped: "))
    assert all(to - start <= 1800 for start, to in shown_spans(page))
    find(page, "#csv").click()
    table = list(csv.DictReader(io.StringIO(downloaded(page, "mien-faces.csv").decode())))
    times = [float(row["time_s"]) for row in table]
    assert times[0] > 1000 and times[-1] - times[0] <= 1800 and len({row["frame"] for row in table}) == 19


def shown_spans(page: Any) -> list[tuple[float, float]]:
    """From when to when (s) each face was in sight, by the table over time."""
    rows = page.execute_script("return [...document.querySelectorAll('.tracks tbody tr')].map(row => row.innerText)")
    return [(float(start), float(to)) for start, to in (re.findall(r"([0-9.]+) s\b", row) for row in rows)]


def test_a_camera_that_is_taken_away_is_told(page: Any) -> None:
    page.execute_script("""
        const devices = navigator.mediaDevices, asked = devices.getUserMedia.bind(devices);
        devices.getUserMedia = async (what) => (window.film = await asked(what));""")
    find(page, "#camera").click()
    until(lambda: page.find_elements("css selector", ".tracks tbody tr"))
    page.execute_script("window.film.getTracks().forEach((track) => track.stop())")
    until(lambda: not find(page, "#stop").is_displayed())
    assert find(page, "#status").text.startswith("The camera failed: it gives no more pictures; plug it in")


def test_what_a_screen_reader_hears(page: Any, portrait: Path) -> None:
    upload(page, portrait)
    nodes = page.execute_cdp_cmd("Accessibility.getFullAXTree", {})["nodes"]
    named = [
        (node["role"]["value"], node.get("name", {}).get("value", "")) for node in nodes if not node.get("ignored")
    ]
    roles = {role for role, _ in named}
    assert {"banner", "main", "contentinfo", "heading", "table", "rowheader", "columnheader", "status"} <= roles
    for role in ("button", "combobox", "link", "image", "table", "article"):
        spoken = [name for kind, name in named if kind == role]
        assert role == "article" or (spoken and all(spoken)), (role, spoken)
    assert ("button", "Choose photos or videos") in named or any(
        "Choose photos or videos" in name for role, name in named if role in ("button", "FileUpload")
    )
    assert page.execute_script("return document.getElementById('status').getAttribute('aria-live')") == "polite"


def test_the_keyboard_reaches_everything_and_it_shows(page: Any, portrait: Path) -> None:
    """Tab goes from the skip link through every control, each with a visible outline."""
    upload(page, portrait)
    page.execute_script("document.activeElement.blur()")
    from selenium.webdriver.common.action_chains import ActionChains
    from selenium.webdriver.common.keys import Keys

    order = []
    for _ in range(8):
        ActionChains(page).send_keys(Keys.TAB).perform()
        focus = page.switch_to.active_element
        order.append(focus.get_attribute("id") or focus.text)
        outlined = "const e = arguments[0]; return getComputedStyle(e.id === 'files' ? e.nextElementSibling : e)"
        assert page.execute_script(f"{outlined}.outlineStyle", focus) != "none", order
    copy = "Download the annotated picture"
    assert order == ["Skip to the results", "files", "camera", "rate", "csv", "clear", copy, "Responsible use"]


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_colours_can_be_told_apart(page: Any, portrait: Path, scheme: str) -> None:
    """Text against its background by WCAG 2's contrast, at least 4.5 : 1, in both schemes."""
    feature = [{"name": "prefers-color-scheme", "value": scheme}]
    page.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": feature})
    upload(page, portrait)
    pairs = page.execute_script("""
      const ground = (e) => { while (e && getComputedStyle(e).backgroundColor === "rgba(0, 0, 0, 0)") e = e.parentElement;
                              return getComputedStyle(e || document.body).backgroundColor; };
      return [...document.querySelectorAll("p, h1, h2, h3, a, .button, th, .percent, caption, .second, select")]
        .filter(e => e.offsetParent && e.textContent.trim())
        .map(e => [e.textContent.trim().slice(0, 30), getComputedStyle(e).color, ground(e)]);""")
    assert len(pairs) > 20
    assert not [(text, ink, paper) for text, ink, paper in pairs if contrast(ink, paper) < 4.5]
    darkness = luminance(page.execute_script("return getComputedStyle(document.body).backgroundColor"))
    assert (darkness < 0.2) == (scheme == "dark")


def luminance(colour: str) -> float:
    """WCAG 2's relative luminance of "rgb(r, g, b)"."""
    parts = [int(part) / 255 for part in colour[colour.index("(") + 1 : -1].split(",")[:3]]
    red, green, blue = (part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts)
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


def contrast(one: str, other: str) -> float:
    darker, lighter = sorted((luminance(one), luminance(other)))
    return (lighter + 0.05) / (darker + 0.05)


def test_a_telephone_scrolls_only_downwards(page: Any, portrait: Path) -> None:
    size = {"width": 360, "height": 780, "deviceScaleFactor": 2, "mobile": True}
    page.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
    try:
        upload(page, portrait)
        assert page.execute_script("return document.documentElement.scrollWidth") <= 360
    finally:
        page.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})


def focused(page: Any) -> str:
    return str(page.execute_script("return document.activeElement.id"))


def test_the_keyboards_focus_is_kept(page: Any, portrait: Path) -> None:
    page.execute_script("document.getElementById('files').focus()")
    upload(page, portrait)
    assert focused(page) == "files" and find(page, "#files").get_attribute("aria-disabled") is None
    find(page, "#camera").click()
    until(lambda: find(page, "#stop").is_displayed())
    assert find(page, "#files").get_attribute("aria-disabled") == "true"
    told = "document.getElementById('clear').click(); return document.getElementById('status').textContent"
    assert page.execute_script(told).startswith("Still reading")  # read at once: the camera soon says what it sees
    assert find(page, "article")
    page.execute_script("document.getElementById('stop').focus()")
    find(page, "#stop").send_keys("\n")
    until(lambda: not find(page, "#stop").is_displayed())
    assert focused(page) == "files"


def drop(page: Any, *paths: Path) -> None:
    """Let go of files and folders over the page."""
    place = find(page, "#drop").rect
    for kind in ("dragEnter", "dragOver", "drop"):
        data = {"items": [], "files": [str(path) for path in paths], "dragOperationsMask": 1}
        event = {"type": kind, "x": place["x"] + 20, "y": place["y"] + 20, "data": data}
        page.execute_cdp_cmd("Input.dispatchDragEvent", event)


def test_what_cannot_be_read_is_counted_and_the_rest_is_read(page: Any, portrait: Path, tmp_path: Path) -> None:
    """A dropped folder without pictures, too."""
    (tmp_path / "a.txt").write_text("no picture")
    (tmp_path / "papers" / "empty").mkdir(parents=True)
    (tmp_path / "papers" / "b.txt").write_text("no picture")
    twin = tmp_path / "twin.png"
    twin.write_bytes(portrait.read_bytes())
    drop(page, portrait, tmp_path / "papers", tmp_path / "a.txt", twin)
    until(lambda: "failed" in find(page, "#status").text)
    assert find(page, "#status").text == "2 of 4 files read, 2 failed; the results are below."
    articles = page.find_elements("css selector", "article")
    assert "error: it is a folder without pictures" in articles[1].text and "error: not a picture" in articles[2].text
    assert all(article.find_elements("css selector", "table") for article in (articles[0], articles[3]))
    page.get_log("browser")  # where Chromium notes that the answer for a.txt was a refusal


def test_a_dropped_folder_stands_for_the_pictures_in_it(page: Any, portrait: Path, tmp_path: Path) -> None:
    """And below, folder by folder, by name, under their paths; more of them than a browser lists at once."""
    photos = tmp_path / "photos"
    (photos / "b").mkdir(parents=True)
    plain = encode(Image.new("RGB", (32, 32)), "PNG")
    names = [f"a{number:03}.png" for number in range(104)]
    for name in names:
        (photos / name).write_bytes(plain)
    (photos / "b" / "deep.png").write_bytes(portrait.read_bytes())
    (photos / "c.tiff").write_bytes(encode(Image.new("RGB", (32, 32)), "TIFF"))
    for name in ("._a.png", "notes.txt", "b/notes.csv"):
        (photos / name).write_text("no picture")
    drop(page, photos)
    until(lambda: find(page, "#status").text == "106 files read; the results are below.")
    told = [
        article.find_element("css selector", "h3").text for article in page.find_elements("css selector", "article")
    ]
    assert told == [f"photos/{name}" for name in (*names, "b/deep.png", "c.tiff")]
    found = page.find_elements("css selector", "article")
    assert [bool(article.find_elements("css selector", "table")) for article in found[-3:]] == [False, True, False]


def test_it_says_where_pictures_go(page: Any, address: str) -> None:
    assert find(page, "#privacy").text.endswith("and nowhere else; it forgets them once they are read.")
    find(page, "footer a").click()
    until(lambda: page.current_url.endswith("/responsible-use"))
    assert find(page, "h1").text == "Responsible use" and "Article 5(1)(f)" in find(page, "main").text


def test_unsure_below_one_half_and_numbers_that_stay(page: Any) -> None:
    script = """
      const done = arguments[0];
      Promise.all([import("/drawing.js"), import("/tracking.js")]).then(([drawing, tracking]) => {
        const say = (confidence) => drawing.verdict({ expression: "sad", confidence });
        const box = (x) => ({ x, y: 0, width: 10, height: 10 });
        const tracker = new tracking.Tracker();
        const steps = [[[box(0), box(50)], 0], [[box(51), box(2)], 0.5], [[], 0.7], [[box(3)], 1.2], [[box(3)], 3],
          [[], 3.5], [[], 4.6], [[box(3)], 4.7]];
        done([say(0.49), say(0.5), steps.map(([boxes, time]) => tracker.follow(boxes, time))]);
      });"""
    assert page.execute_async_script(script) == [
        "unsure: sad 49%",
        "sad 50%",
        [[1, 2], [2, 1], [], [1], [1], [], [], [3]],
    ]


def test_what_cannot_be_read_is_said_and_saved(chromium: Any, address: str, tmp_path: Path) -> None:
    chromium.get(address)
    until(lambda: find(chromium, "#model").text)
    path = tmp_path / "notes.png"
    path.write_text("hello, world")
    upload(chromium, path)
    assert find(chromium, ".failed").text.startswith("error: not a picture in a format that mien reads")
    find(chromium, "#csv").click()
    (row,) = csv.DictReader(io.StringIO(downloaded(chromium, "mien-faces.csv").decode()))
    assert row["source"] == "notes.png" and row["status"].startswith("error: not a picture")


def test_the_token_is_asked_for(chromium: Any, tiny_model: Path, portrait: Path) -> None:
    with in_thread(web.create_app(Reader(tiny_model), door=Door(token=TOKEN))) as client:
        chromium.get(str(client.base_url))
        until(lambda: find(chromium, "#token-form").is_displayed())
        find(chromium, "#token").send_keys("a-token-cut-short\u2026\n")
        until(lambda: "a character that no token of mien's has" in find(chromium, "#status").text)
        find(chromium, "#token").clear()
        find(chromium, "#token").send_keys(f"{TOKEN}\n")
        until(lambda: find(chromium, "#model").text)
        assert not find(chromium, "#token-form").is_displayed()
        upload(chromium, portrait)
        assert find(chromium, "#status").text.startswith("hopper.png: 1 face: ")
