"""The page in a real browser; what it shows and gives is compared with the Python API."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from importlib import resources
from pathlib import Path
from urllib.request import urlopen

import cv2
import numpy as np
import pytest

from trtseg import Segmenter
from trtseg import bundle as bundles
from trtseg.serve import prompts
from trtseg.serve.folder import Folder
from trtseg.serve.limits import Limits
from trtseg.serve.workspace import Workspace
from trtseg.types import Box, Lasso, Stroke

from .browsing import Page, chromium
from .conftest import picture, png
from .running import Running


@pytest.fixture(scope="module")
def browser() -> Iterator[object]:
    try:
        opened = chromium()
        found = opened.__enter__()
    except (ImportError, FileNotFoundError) as error:
        pytest.skip(f"no browser to test the page in: {error}")
    yield found
    opened.__exit__(None, None, None)


@pytest.fixture
def running(workspace: Workspace) -> Iterator[Running]:
    workspace.add_photo(png(picture()), "waves.png")
    with Running(workspace) as found:
        yield found


@pytest.fixture
def tab(browser) -> Iterator[object]:
    context = browser.new_context(viewport={"width": 1280, "height": 800}, color_scheme="dark")
    yield context.new_page()
    context.close()


@pytest.fixture
def page(tab, running: Running) -> Iterator[Page]:
    found = Page(tab, running.url).ready()
    yield found
    assert found.errors == []


def session_of(workspace: Workspace, image: np.ndarray | None = None):
    image = picture() if image is None else image
    return workspace.segmenter.session(workspace.segmenter.encode(image))


def said(page: Page) -> list[object]:
    found = page.js("trtseg.editor.active.answer.object.prompts")
    return [prompts.from_json(prompt) for prompt in found]


def shown_mask(page: Page) -> np.ndarray:
    """The mask that the page draws."""
    rows = page.js("[...trtseg.editor.active.mask.data]")
    return np.array(rows, np.uint8).reshape(120, 160)


def exported(page: Page, name: str) -> bytes:
    page.tab.click("#export")
    with page.tab.expect_download() as download:
        page.tab.locator("#export-menu").get_by_text(name, exact=True).click()
    return Path(download.value.path()).read_bytes()


def test_a_click_shows_its_mask_and_undo_takes_it_back(page: Page, workspace: Workspace) -> None:
    session = session_of(workspace)
    before = page.pixel(80, 66)
    page.click(80, 60)
    (click,) = said(page)
    assert (click.x, click.y) == pytest.approx((80, 60), abs=0.5)
    p = session.add_click(click.x, click.y)
    np.testing.assert_array_equal(shown_mask(page) * 255, p.mask)
    assert p.mask[66, 80]
    assert page.pixel(80, 66) != before
    page.click(20, 20, button="right")
    q = session.add_click(said(page)[1].x, said(page)[1].y, False)
    np.testing.assert_array_equal(shown_mask(page) * 255, q.mask)
    with page.answered():
        page.tab.keyboard.press("z")
    np.testing.assert_array_equal(shown_mask(page) * 255, p.mask)
    with page.answered():
        page.tab.keyboard.press("Shift+Z")
    np.testing.assert_array_equal(shown_mask(page) * 255, q.mask)
    with page.answered():
        page.tab.click("#reset")
    assert page.pixel(80, 66) == before


def test_candidates_are_shown_and_taken(page: Page, workspace: Workspace) -> None:
    page.click(80, 60)
    session = session_of(workspace)
    session.add_click(said(page)[0].x, said(page)[0].y)
    assert page.tab.locator(".candidate").count() == 3
    for way, index in (("key", 2), ("click", 0), ("key", 1)):
        if page.js("trtseg.editor.active.answer.selected") == index:
            continue
        with page.answered():
            if way == "key":
                page.tab.keyboard.press(str(index + 1))
            else:
                page.tab.locator(".candidate").nth(index).click()
        np.testing.assert_array_equal(shown_mask(page) * 255, session.select(index).mask)
        chosen = page.tab.locator(".candidate[aria-checked=true]")
        assert chosen.locator("b").text_content() == str(index + 1)


def test_box_brush_and_lasso(page: Page, workspace: Workspace) -> None:
    session = session_of(workspace)
    keyboard = page.tab.keyboard
    with page.answered():
        keyboard.press("b")
        page.drag((30, 30), (110, 90))
    with page.answered():
        keyboard.press("s")
        page.drag((40, 40), (60, 44), (90, 50))
    with page.answered():
        keyboard.press("t")
        page.drag((130, 20), (140, 60))
    with page.answered():
        keyboard.press("l")
        page.drag((50, 50), (100, 50), (100, 80), (50, 80))
    with page.answered():
        keyboard.press("p")
        keyboard.down("Shift")
        page.drag((20, 20), (60, 60))
        keyboard.up("Shift")
    found = said(page)
    kinds = [Box, Stroke, Stroke, Lasso, Box]
    assert [type(prompt) for prompt in found] == kinds
    assert [prompt.positive for prompt in found[1:3]] == [True, False]
    assert (found[0].x0, found[0].y1) == pytest.approx((30, 90), abs=0.5)
    for prompt in found:
        p = prompts.apply(session, prompt)
    np.testing.assert_array_equal(shown_mask(page) * 255, p.mask)


def test_exports_equal_the_python_api(page: Page, workspace: Workspace) -> None:
    page.click(80, 60)
    page.click(20, 20, button="right")
    session = session_of(workspace)
    for prompt in said(page):
        p = prompts.apply(session, prompt)
    mask = np.frombuffer(exported(page, "Mask"), np.uint8)
    np.testing.assert_array_equal(cv2.imdecode(mask, cv2.IMREAD_UNCHANGED), p.mask)
    cutout = np.frombuffer(exported(page, "Cutout"), np.uint8)
    bgra = cv2.cvtColor(cv2.imdecode(cutout, cv2.IMREAD_UNCHANGED), cv2.COLOR_BGRA2RGBA)
    np.testing.assert_array_equal(bgra, p.cutout())
    assert json.loads(exported(page, "Run lengths")) == p.rle()
    polygons = json.loads(exported(page, "Polygons"))["polygons"]
    assert [part["outline"] for part in polygons] == [q.outline.tolist() for q in p.polygons()]
    coco = json.loads(exported(page, "COCO"))
    assert coco["annotations"][0]["segmentation"] == p.rle()


def test_the_preview_is_the_click_s_own_mask(page: Page, workspace: Workspace) -> None:
    page.click(80, 60)
    page.tab.mouse.move(*page.at(120, 80))
    page.until("trtseg.editor.preview !== null")
    at = page.js("({x: trtseg.editor.preview.x, y: trtseg.editor.preview.y})")
    rows = page.js("[...trtseg.editor.preview.mask.data]")
    session = session_of(workspace)
    session.add_click(said(page)[0].x, said(page)[0].y)
    wanted = session.add_click(at["x"], at["y"]).mask
    np.testing.assert_array_equal(np.array(rows).reshape(120, 160) * 255, wanted)
    page.tab.uncheck("#previews")
    assert page.js("trtseg.editor.preview === null")


def test_several_objects_are_layers(page: Page) -> None:
    page.click(80, 60)
    page.tab.keyboard.press("m")
    page.until("trtseg.editor.objects.length === 2 && !!trtseg.editor.active.answer")
    page.click(30, 30)
    first, second = page.js("trtseg.editor.objects.map(one => one.mask.area)")
    assert first
    assert second
    page.tab.keyboard.press("[")
    assert page.js("trtseg.editor.active === trtseg.editor.objects[0]")
    name = page.tab.locator("#objects .name").first
    name.fill("cup")
    name.press("Enter")
    page.until("trtseg.editor.objects[0].name === 'cup'")
    page.drawn()
    before = page.pixel(80, 66)
    page.tab.locator("#objects button[title=Hide]").first.click()
    page.drawn()
    assert page.pixel(80, 66) != before
    page.tab.locator("#objects button[title=Remove]").first.click()
    page.until("trtseg.editor.objects.length === 1")


def test_zoom_and_pan_keep_clicks_where_they_are(page: Page) -> None:
    x, y = page.at(100, 70)
    page.tab.mouse.move(x, y)
    page.tab.mouse.wheel(0, -300)
    page.until("trtseg.view.scale > 6")
    assert page.at(100, 70) == pytest.approx((x, y), abs=1)  # the wheel's place is in whole pixels
    page.tab.locator("#canvas").focus()
    page.tab.keyboard.down(" ")
    page.drag((100, 70), (90, 70))
    page.tab.keyboard.up(" ")
    assert page.at(90, 70) != pytest.approx((x, y), abs=1)
    page.click(100, 70)
    assert (said(page)[0].x, said(page)[0].y) == pytest.approx((100, 70), abs=0.2)
    page.tab.keyboard.press("f")


def test_the_keyboard_alone_is_enough(page: Page) -> None:
    page.tab.locator("#canvas").focus()
    for key in ("ArrowLeft", "Shift+ArrowUp"):
        page.tab.keyboard.press(key)
    with page.answered():
        page.tab.keyboard.press("Enter")
    with page.answered():
        page.tab.keyboard.press("ArrowRight")
        page.tab.keyboard.press("Backspace")
    assert [prompt.positive for prompt in said(page)] == [True, False]
    assert said(page)[0].x < 79.5


def test_two_pages_do_not_mix(browser, page: Page, running: Running, workspace: Workspace) -> None:
    other_photo = workspace.add_photo(png(picture(3)), "other.png").id
    tab = browser.new_page()
    other = Page(tab, f"{running.url}&photo={other_photo}").ready()
    for x in (40, 80, 120):
        page.click(x, 60)
        other.click(x, 90)
    for one, image in ((page, picture()), (other, picture(3))):
        session = session_of(workspace, image)
        for prompt in said(one):
            p = prompts.apply(session, prompt)
        np.testing.assert_array_equal(shown_mask(one) * 255, p.mask)
    tab.close()


def hold(page: Page, ending: str) -> None:
    """Requests whose path ends so wait until `let_go`."""
    page.js(
        f"""(() => {{
            const real = window.fetch, held = [];
            window.held = held;
            window.letGo = () => (window.fetch = real, held.forEach((go) => go()));
            window.fetch = (...asked) => asked[0].endsWith({json.dumps(ending)})
                ? new Promise((go) => held.push(() => go(real(...asked)))) : real(...asked);
        }})()"""
    )


def let_go(page: Page) -> None:
    page.until("held.length > 0")
    page.js("letGo()")


def other_photos(page: Page, workspace: Workspace, *names: str) -> list[str]:
    """More photos in the page's list."""
    keys = [workspace.add_photo(png(picture(seed)), name).id for seed, name in enumerate(names, 11)]
    page.js("trtseg.editor.listPhotos()")
    return keys


def test_clicks_belong_to_the_photo_they_were_made_on(page: Page, workspace: Workspace) -> None:
    (first,) = workspace.photos()
    (other,) = other_photos(page, workspace, "other.png")
    hold(page, "/prompts")
    for x in (80, 120):
        page.tab.mouse.click(*page.at(x, 60))
    page.tab.locator(".photo", has_text="other.png").click()
    page.until("trtseg.editor.photo.name === 'other.png' && !!trtseg.editor.active?.answer")
    assert page.js("trtseg.editor.pending.length") == 0, "clicks of one photo are shown on another"
    page.tab.locator(".photo", has_text="waves.png").click()
    page.until("trtseg.editor.photo.name === 'waves.png' && !!trtseg.editor.active?.answer")
    let_go(page)
    page.js("trtseg.editor.queue")
    (one,) = workspace.photo(first.id).objects
    assert [prompt.x for prompt in one.said] == pytest.approx([80, 120], abs=0.5)
    assert said(page) == list(one.said)
    assert workspace.photo(other).objects[0].said == ()
    assert page.tab.locator(".toast").count() == 0


@pytest.mark.parametrize("ending", ["/image", "/objects"])
def test_the_photo_that_was_opened_last_is_shown(
    page: Page, workspace: Workspace, ending: str
) -> None:
    slow, last = other_photos(page, workspace, "slow.png", "last.png")
    page.js(
        """(() => {
            const { editor } = trtseg, open = editor.open.bind(editor);
            window.opened = [];
            editor.open = (id) => opened[opened.push(open(id)) - 1];
        })()"""
    )
    hold(page, f"{slow}{ending}")
    page.tab.locator(".photo", has_text="slow.png").click()
    page.until("held.length > 0")
    page.tab.locator(".photo", has_text="last.png").click()
    page.until("trtseg.editor.photo.name === 'last.png' && !!trtseg.editor.active?.answer")
    let_go(page)
    page.js("opened[0]")
    assert page.js("trtseg.editor.photo.id") == last
    assert page.js("new URL(location.href).searchParams.get('photo')") == last
    (one,) = workspace.photo(last).objects
    assert page.js("trtseg.editor.objects.map(one => one.id)") == [one.id]
    page.click(80, 60)
    assert len(workspace.photo(last).objects[0].said) == 1


def test_touch(browser, running: Running) -> None:
    context = browser.new_context(
        viewport={"width": 390, "height": 844}, has_touch=True, is_mobile=True
    )
    page = Page(context.new_page(), running.url).ready()
    with page.answered():
        page.tab.touchscreen.tap(*page.at(80, 60))
    assert [prompt.positive for prompt in said(page)] == [True]
    wide = page.js("document.documentElement.scrollWidth <= innerWidth")
    assert wide, "the page is wider than the screen"
    assert page.errors == []
    context.close()


def test_a_hostile_file_is_told_in_words(page: Page, tmp_path: Path) -> None:
    (tmp_path / "evil.png").write_bytes(png(picture())[:60] + os.urandom(2000))
    page.tab.set_input_files("#files", str(tmp_path / "evil.png"))
    page.tab.locator(".toast").wait_for()
    assert "cannot be read" in page.tab.locator(".toast").text_content()
    good = tmp_path / "<img src=x onerror=alert(1)>.png"
    good.write_bytes(png(picture(5)))
    page.tab.set_input_files("#files", str(good))
    page.until("trtseg.editor.photo.name.startsWith('<img') && !!trtseg.editor.active?.answer")
    assert page.tab.locator("#photo-name").text_content() == good.name
    page.click(80, 60)


def test_a_bad_file_among_several_stops_no_other(page: Page, tmp_path: Path) -> None:
    names = ("one.png", "evil.png", "two.png", "three.txt")
    for seed, name in enumerate(names, 5):
        good = name in ("one.png", "two.png")
        (tmp_path / name).write_bytes(png(picture(seed)) if good else b"no image")
    page.tab.set_input_files("#files", [str(tmp_path / name) for name in names])
    page.until("trtseg.editor.photo.name === 'two.png' && !!trtseg.editor.active?.answer")
    told = page.tab.locator(".toast").all_text_contents()
    assert [text.partition(": ")[0] for text in told] == ["evil.png", "three.txt"]
    assert all("xpected an image" in text for text in told)
    listed = page.js("trtseg.editor.photos.map(one => one.name)")
    assert sorted(listed) == ["one.png", "two.png", "waves.png"]


def test_without_the_token_the_page_says_so(tab, running: Running) -> None:
    page = Page(tab, running.url.split("?")[0])
    page.until("!document.getElementById('hint').hidden")
    assert "link" in page.tab.locator("#hint").text_content()


def test_the_api_is_described(tab, running: Running) -> None:
    page = Page(tab, running.url.replace("/?", "/page/api.html?"))
    page.until("document.querySelectorAll('#operations details').length > 15")
    assert page.errors == []


def serve(folder: Path, model: Path, port: int = 0) -> tuple[subprocess.Popen, str]:
    command = [
        sys.executable, "-m", "trtseg", "serve", "--state", folder, "--model", model,
        "--threads", "1", "--port", str(port), "--token", "a-token-for-the-tests",
    ]  # fmt: skip
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    return process, process.stdout.readline().strip()


def test_a_killed_server_loses_nothing(tab, workspace: Workspace) -> None:
    workspace.add_photo(png(picture()), "waves.png")
    model = workspace.segmenter.bundle.path
    process, url = serve(workspace.folder.path, model)
    try:
        page = Page(tab, url).ready()
        page.click(80, 60)
        page.click(20, 20, button="right")
        mask, prompts_before = shown_mask(page), said(page)
        process.send_signal(signal.SIGKILL)
        process.wait()
        process.stdout.close()
        page.tab.mouse.click(*page.at(40, 90))
        page.tab.locator(".toast").wait_for()
        process, _ = serve(workspace.folder.path, model, int(url.split(":")[2].split("/")[0]))
        page.until("document.body.dataset.server === 'here' && !trtseg.editor.pending.length")
        assert said(page) == prompts_before
        np.testing.assert_array_equal(shown_mask(page), mask)
        page.click(60, 60)
        assert said(page)[:2] == prompts_before
        page.tab.reload()
        page.ready()
        assert len(said(page)) == 3
    finally:
        process.kill()
        process.wait()
        process.stdout.close()


def test_edit_opens_the_photos_it_is_given(tmp_path: Path, workspace: Workspace) -> None:
    (tmp_path / "mine.png").write_bytes(png(picture()))
    command = [
        sys.executable, "-m", "trtseg", "edit", tmp_path / "mine.png", "--no-browser", "--state",
        tmp_path / "work", "--model", workspace.segmenter.bundle.path, "--threads", "1",
    ]  # fmt: skip
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    try:
        url = process.stdout.readline().strip()
        assert "&photo=" in url
        # a shell in the background starts programs that ignore Ctrl-C until they ask for it
        assert urlopen(url, timeout=20).status == 200
        process.send_signal(signal.SIGINT)
        assert process.wait(20) in (0, 130)
    finally:
        process.kill()
        process.wait()
        process.stdout.close()


@pytest.mark.skipif("lite" not in bundles.names(), reason="no lite model in the package")
def test_pictures_of_the_page(browser, tmp_path: Path) -> None:
    """The pictures of the documents: TRTSEG_PICTURES=docs/images pytest tests/serve/test_page.py"""
    pictures = Path(os.environ.get("TRTSEG_PICTURES", tmp_path))
    workspace = Workspace(Segmenter.load("lite"), Folder(tmp_path / "state"), Limits())
    data = resources.files("trtseg") / "data"
    for name in ("chelsea.jpg", "coffee.jpg"):
        photo = workspace.add_photo((data / name).read_bytes(), name)
    cup, spoon = (workspace.add_object(photo.id, name).id for name in ("Cup", "Spoon"))
    workspace.prompt(photo.id, cup, Box(172, 16, 415, 312))
    workspace.prompt(photo.id, spoon, Box(325, 236, 408, 332))
    with Running(workspace) as running:
        for scheme in ("dark", "light"):
            tab = browser.new_page(viewport={"width": 1280, "height": 800}, color_scheme=scheme)
            page = Page(tab, running.url).ready()
            page.until("trtseg.editor.objects.every(one => one.answer)")
            page.until("[...document.images].every(one => one.complete)")
            page.tab.keyboard.press("[")
            page.drawn()
            page.tab.keyboard.press("1")  # the cup without the spoon
            page.drawn()
            picture = pictures / f"editor-{scheme}.jpg"
            tab.screenshot(path=picture, quality=88)
            assert cv2.imread(str(picture)).shape == (800, 1280, 3)
            assert page.tab.locator(".candidate").count() == 6
            assert page.errors == []
            tab.close()
