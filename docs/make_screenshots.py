"""Takes the pictures of the server's page in docs/figures: light, dark, and on a phone.

`python docs/make_screenshots.py MODEL` serves a model, asks it in a real Chromium, and writes
`page-*.png`. Needs the extras `[server]` and `[test]`, and chromium on the path. The times that the
pictures show are of no measurement.
"""

from __future__ import annotations

import argparse
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from own_files import ROOT

FIGURES = ROOT / "docs" / "figures"
MOST_BYTES = 150_000
WIDE = {"width": 1180, "height": 780}
PHONE = {"width": 360, "height": 720}
QUESTIONS = (
    "What is a palindrome? Answer in one sentence.",
    "Write a short Python function that tells whether a word is one, and explain it in a sentence.",
)


@contextmanager
def served(model: str, name: str) -> Iterator[str]:
    """The address of a server of `model`."""
    words = ["serve", model, "--name", name, "--port", "0"]
    command = [sys.executable, "-m", "sparity_edge", *words]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True, cwd=ROOT) as process:
        assert process.stderr is not None
        try:
            for line in process.stderr:
                sys.stderr.write(line)
                if found := re.search(r" at (http://\S+)/v1", line):
                    yield found[1]
                    break
        finally:
            process.send_signal(signal.SIGINT)


def ask(page: Any, question: str, sparsity: float) -> None:
    """Ask with the dial at a sparsity, where the model has one, and wait for the answer."""
    if page.locator("#dial-box").is_visible():
        page.fill("#dial", str(sparsity))
    page.fill("#text", question)
    page.press("#text", "Enter")
    page.locator("body:not(.busy)").wait_for()


def shoot(page: Any, name: str) -> None:
    """Write what the page shows."""
    path = FIGURES / f"page-{name}.png"
    page.screenshot(path=path)
    size = path.stat().st_size
    sys.stdout.write(f"{path.relative_to(ROOT)}: {size:,} bytes\n")
    if size > MOST_BYTES:
        raise SystemExit(f"{path.name} is above {MOST_BYTES:,} bytes; show less.")


def main() -> None:
    """Serve, ask, shoot."""
    from playwright.sync_api import sync_playwright

    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model", help="what to serve; best a packed folder that has plans")
    parser.add_argument("--name", help="what to call it (default: the model)")
    parser.add_argument("--sparsity", type=float, default=0.4, help="of the second answer")
    arguments = parser.parse_args()
    name = arguments.name or Path(arguments.model).name
    with served(arguments.model, name) as address, sync_playwright() as driver:
        browser = driver.chromium.launch(
            executable_path=shutil.which("chromium"), args=["--no-sandbox"]
        )
        context = browser.new_context(viewport=WIDE)
        context.set_default_timeout(600_000)
        page = context.new_page()
        page.goto(address)
        page.locator("#dial-box:visible, #no-plans:visible").wait_for()
        page.fill("#temperature", "0")
        page.fill("#max_tokens", "300")
        for question, sparsity in zip(QUESTIONS, (0, arguments.sparsity), strict=True):
            ask(page, question, sparsity)
        shoot(page, "light")
        page.emulate_media(color_scheme="dark")
        shoot(page, "dark")
        context = browser.new_context(
            viewport=PHONE, device_scale_factor=1.5, storage_state=context.storage_state()
        )
        page = context.new_page()
        page.goto(address)
        page.locator("#dial-box:visible, #no-plans:visible").wait_for()
        shoot(page, "phone")
        browser.close()


if __name__ == "__main__":
    main()
