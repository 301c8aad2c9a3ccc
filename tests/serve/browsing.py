"""Headless Chromium on the page."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from time import monotonic, sleep
from typing import Any

CHROMIUM = os.environ.get("TRTSEG_CHROMIUM") or shutil.which("chromium") or shutil.which("chrome")
FLAGS = (
    "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-sync",
    "--disable-background-networking", "--disable-component-update",
)  # fmt: skip
WAIT_S = 60.0  # a busy machine, and no answer is worth waiting longer for


class Page:
    """The page in a tab, spoken to in the photo's pixels."""

    def __init__(self, tab: Any, url: str) -> None:
        self.tab = tab
        self.errors: list[str] = []
        tab.on("pageerror", lambda error: self.errors.append(str(error)))
        tab.goto(url)

    def js(self, text: str) -> Any:
        """The value of an expression."""
        return self.tab.evaluate(text)

    def until(self, text: str) -> None:
        """Wait for an expression to be true; a string would need eval, which the page forbids."""
        end = monotonic() + WAIT_S
        while not self.js(text):
            assert monotonic() < end, f"{text} did not become true; {self.errors}"
            sleep(0.03)

    def ready(self) -> Page:
        """Wait for the photo and its first answer."""
        self.until("!!window.trtseg?.editor.active?.answer && trtseg.editor.image !== null")
        return self

    def at(self, x: float, y: float) -> tuple[float, float]:
        """Where a pixel of the photo is in the window."""
        point = self.js(f"trtseg.view.toScreen({{x: {x}, y: {y}}})")
        box = self.tab.locator("#canvas").bounding_box()
        return box["x"] + point["x"], box["y"] + point["y"]

    @contextmanager
    def answered(self) -> Iterator[None]:
        """What is done in the block gives one more answer, which is waited for."""
        self.js("void (window.before = trtseg.editor.active.answer)")
        yield
        self.until("trtseg.editor.active.answer !== window.before && !trtseg.editor.pending.length")
        self.drawn()

    def click(self, x: float, y: float, **options: Any) -> None:
        """A click that is answered."""
        with self.answered():
            self.tab.mouse.click(*self.at(x, y), **options)

    def drag(self, *points: tuple[float, float]) -> None:
        """Press, move and let go."""
        mouse = self.tab.mouse
        mouse.move(*self.at(*points[0]))
        mouse.down()
        for point in points[1:]:
            mouse.move(*self.at(*point), steps=3)
        mouse.up()

    def drawn(self) -> None:
        """Wait for the frame after the next."""
        self.tab.evaluate(
            "new Promise(done => requestAnimationFrame(() => requestAnimationFrame(done)))"
        )

    def pixel(self, x: float, y: float) -> list[int]:
        """RGB of the canvas over a pixel of the photo."""
        return self.js(
            f"""(() => {{
                const p = trtseg.view.toScreen({{x: {x}, y: {y}}}), r = devicePixelRatio;
                const c = trtseg.view.context;
                return [...c.getImageData(Math.round(p.x * r), Math.round(p.y * r), 1, 1).data]
                    .slice(0, 3);
            }})()"""
        )


@contextmanager
def chromium() -> Iterator[Any]:
    """A browser of its own profile.

    Raises:
        ImportError: playwright is not installed.
        FileNotFoundError: there is no Chromium.
    """
    from playwright.sync_api import sync_playwright

    if CHROMIUM is None:
        raise FileNotFoundError("no chromium on this machine")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=CHROMIUM, headless=True, args=list(FLAGS)
        )
        try:
            yield browser
        finally:
            browser.close()
