"""How fast a report of many cases opens, scrolls, searches and sorts, in headless Chromium.

    python -m eval.speed.page OUT [--cases 3000]

Repeats the results of a run until there are so many, rolls the pixels of each copy so that no two
images are the same, writes the report, and measures it in the browser on PATH, or in CHROME:

- `load`: until the load event; `paint`: until something is seen; both since the navigation began
- `scroll`: between two frames while the table moves by 800 pixels per frame (median and largest)
- `search`, `sort`, `case`: until the page has changed and is drawn
"""

import base64
import hashlib
import html
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import threading
from pathlib import Path

import numpy as np
from absl import flags

from diffcf_jax import cli
from diffcf_jax.errors import UserError
from diffcf_jax.files import encode_png, read_image, write_file
from diffcf_jax.report.html import write_report
from diffcf_jax.results.log import IMAGES, read_results, write_results

_BROWSERS = ("chromium", "chromium-browser", "google-chrome", "chrome")
_SECONDS = 120  # that a page may take
_SCRIPT = """
addEventListener("load", async () => {
  const frame = () => new Promise(resolve => requestAnimationFrame(() => setTimeout(resolve)));
  const timed = async change => {
    const begin = performance.now();
    change();
    await frame();
    return performance.now() - begin;
  };
  await new Promise(resolve => setTimeout(resolve, 1000));
  const found = {load: performance.getEntriesByType("navigation")[0].loadEventEnd,
    paint: performance.getEntriesByName("first-contentful-paint")[0]?.startTime ?? null};
  const table = document.getElementById("cases");
  table.scrollIntoView();
  const frames = [];
  for (let i = 0; i < 60; i++) frames.push(await timed(() => table.scrollBy(0, 800)));
  frames.sort((a, b) => a - b);
  found.scroll = frames[30];
  found["scroll, largest"] = frames[59];
  const search = document.getElementById("search");
  found.search = await timed(() => {
    search.value = "copy_1";
    search.dispatchEvent(new Event("input", {bubbles: true}));
  });
  search.value = "";
  search.dispatchEvent(new Event("input", {bubbles: true}));
  await frame();
  found.sort = await timed(() => table.querySelector("th:nth-child(2) button").click());
  found.case = await timed(() => table.querySelector("button.open").click());
  console.log("measured: " + JSON.stringify(found));
});
"""


def multiply(run: Path, folder: Path, cases: int) -> None:
    """Write a run of so many cases into a folder: those of a run, again and again.

    Raises:
        UserError: the run has no result, or an image of it cannot be read.
    """
    rows = [row for row in read_results(run) if "error" not in row]
    if not rows:
        raise UserError(f"{run} holds no result: explain some images first.")
    for name in ("config.json", "summary.json"):
        if (run / name).is_file():
            write_file(folder / name, (run / name).read_bytes())
    copies = []
    for i in range(cases):
        copy, row = divmod(i, len(rows))
        made = dict(rows[row]) | {"id": i, "name": f"copy_{copy}_{rows[row]['name']}"}
        for key in IMAGES:
            if made.get(key):
                made[key] = f"{Path(made[key]).parent}/copy_{copy}_{Path(made[key]).name}"
                image = np.roll(read_image(run / rows[row][key]), copy, 1)
                write_file(folder / made[key], encode_png(image))
        copies.append(made)
    write_results(folder, copies)


def measure(page: Path, folder: Path, browser: str) -> dict[str, float]:
    """Open a page in a browser and return what the script above measures, in milliseconds.

    Args:
        page: the report.
        folder: gets a copy of it with the script, and the browser's profile.
        browser: its program.

    Raises:
        UserError: the browser ends, or takes minutes, without an answer.
    """
    digest = base64.b64encode(hashlib.sha256(_SCRIPT.encode()).digest()).decode()
    allowed = html.escape(f"script-src 'sha256-{digest}' ").replace("&#x27;", "&#39;")
    text = page.read_text().replace("script-src ", allowed, 1)
    opened = folder / "measured.html"
    opened.write_text(text.replace("<title>", f"<script>{_SCRIPT}</script><title>", 1))
    process = subprocess.Popen(
        [
            browser, "--headless", "--no-sandbox", "--disable-gpu", "--no-first-run",
            "--disable-background-networking", "--enable-logging=stderr", "--window-size=1400,1000",
            f"--user-data-dir={folder / 'profile'}", opened.as_uri(),
        ],
        stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, errors="replace",
    )  # fmt: skip
    watchdog = threading.Timer(_SECONDS, process.kill)
    watchdog.start()
    try:
        for line in process.stderr:
            if found := re.search('measured: ({.*})"', line):
                return json.loads(found[1])
        raise UserError(f"{browser} did not measure {page} within {_SECONDS} seconds.")
    finally:
        watchdog.cancel()
        process.kill()
        process.communicate()


def _measure(args: flags.FlagValues, arguments: list[str]) -> None:
    browser = os.environ.get("CHROME") or next(filter(None, map(shutil.which, _BROWSERS)), None)
    if browser is None:
        raise UserError("There is no Chromium: install one, or name its program in CHROME.")
    with tempfile.TemporaryDirectory() as folder:
        run = Path(folder) / "run"
        multiply(Path(arguments[0]), run, args.cases)
        page = write_report(run)
        print(f"{args.cases} cases, {page.stat().st_size / 1e6:.0f} MB")
        for name, value in measure(page, Path(folder), browser).items():
            print(f"{name:<18}{value:8.0f} ms")


def _define(values: flags.FlagValues) -> None:
    flags.DEFINE_integer("cases", 3000, "Results on the page.", 1, flag_values=values)


main = cli.Command(
    program="python -m eval.speed.page",
    about="Measures how fast a report of many cases opens, scrolls, searches and sorts.",
    run=_measure,
    define=_define,
    arguments=("OUT",),
)

if __name__ == "__main__":
    sys.exit(main())
