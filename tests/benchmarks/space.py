"""How long a visitor of the Space waits: `python -m tests.benchmarks.space [--users 10]`.

Starts the page by itself with the bundled weights, opens it in Chromium, and clicks. Then so many
users ask through the API at the same moment. Everything on this machine, browser included.
"""

import argparse
import os
import re
import shutil
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from statistics import median

from tests.benchmarks.pipeline import ROOT  # not of conftest, which allows one thread
from tests.space_server import started

RECORDING = ROOT / "samples" / "librispeech-2414.flac"
LIMIT_S = 300


def measure_browser(address: str, runs: int) -> tuple[float, float, float, float]:
    """Seconds until the page is there, and after a click to the first face and to all (medians).

    And when it shows its example: from then on it draws at once.
    """
    from playwright.sync_api import sync_playwright

    chromium = shutil.which("chromium") or shutil.which("chromium-browser")
    firsts, alls = [], []
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        page = browser.new_page()
        page.set_default_timeout(1000 * LIMIT_S)
        started = time.monotonic()
        page.goto(address)
        page.get_by_label("This is my own voice").check()
        opened = time.monotonic() - started
        page.locator("#example img").nth(3).wait_for()
        drawn = time.monotonic()
        page.get_by_role("button", name="A man reads", exact=True).click()
        page.get_by_test_id("waveform-controls").wait_for()
        for seed in range(1, runs + 1):
            page.evaluate("document.querySelector('#faces [role=status]')?.remove()")
            if seed == 1:
                page.get_by_text("More settings").click()
            page.get_by_label("Seed").fill(str(seed))
            clicked = time.monotonic()
            page.get_by_role("button", name="Draw faces").click()
            page.get_by_text(re.compile("^[1-4] (of 4 faces|faces drawn)")).wait_for()
            firsts.append(time.monotonic() - clicked)
            page.locator(f"a[download='speech2face-seed-{seed}.png']").wait_for()
            alls.append(time.monotonic() - clicked)
        browser.close()
    return opened, drawn, median(firsts), median(alls)


def measure_users(address: str, users: int) -> list[float]:
    """Seconds after which each of so many users, who ask at once, has all faces."""
    from gradio_client import Client, handle_file

    clients = [Client(address, verbose=False) for _ in range(users)]
    started = time.monotonic()

    def ask(client) -> float:
        client.predict(voice=handle_file(RECORDING), consent=True, api_name="/generate")
        return time.monotonic() - started

    with ThreadPoolExecutor(users) as crowd:
        return sorted(crowd.map(ask, clients))


def main(arguments: Sequence[str] | None = None) -> None:
    """Prints a line for each figure, and how busy the machine was."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--users", type=int, default=10, help="who ask at once (default: 10)")
    parser.add_argument("--runs", type=int, default=5, help="clicks (default: 5)")
    options = parser.parse_args(arguments)
    busy = os.getloadavg()[0]
    began = time.monotonic()
    with started(["-m", "space.app"], ROOT, dict(os.environ)) as (address, _):
        answered = time.monotonic()
        print(f"page answers after the start        {answered - began:6.1f} s", flush=True)
        opened, drawn, first, whole = measure_browser(address, options.runs)
        print(f"its example is drawn after the start{drawn - began:6.1f} s")
        print(f"page opened and usable in Chromium  {opened:6.1f} s")
        print(f"first face after the click          {first:6.1f} s")
        print(f"everything after the click          {whole:6.1f} s", flush=True)
        waits = measure_users(address, options.users)
    print(f"{options.users} users at once, the first        {waits[0]:8.1f} s")
    print(f"{options.users} users at once, the last         {waits[-1]:8.1f} s")
    print(f"processes that wanted a core before all this: {busy:.1f} of {os.cpu_count()} cores")


if __name__ == "__main__":
    main()
