"""Pages in headless Chromium, if there is one."""

import base64
import hashlib
import html
import json
import os
import re
import shutil
import subprocess

import pytest

BROWSERS = ("chromium", "chromium-browser", "google-chrome", "chrome")
BROWSER = os.environ.get("CHROME") or next(filter(None, map(shutil.which, BROWSERS)), None)


def browse(text, script, folder, fragment="", window="1400,1000"):
    """What a script that is added to a page leaves in its title, as JSON.

    The page's policy is widened by this script and nothing else.
    """
    if BROWSER is None:
        pytest.skip("no Chromium on PATH and none named by CHROME")
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    policy = html.escape(f"script-src 'sha256-{digest}' ", quote=True)
    policy = policy.replace("&#x27;", "&#39;")
    assert text.count("script-src ") == 1
    text = text.replace("script-src ", policy).replace(
        "<title>", f"<script>{script}</script><title>", 1
    )
    page = folder / "page.html"
    page.write_text(text)
    run = subprocess.run(
        [
            BROWSER, "--headless", "--no-sandbox", "--disable-gpu", "--no-first-run",
            "--disable-background-networking", f"--user-data-dir={folder / 'profile'}",
            f"--window-size={window}", "--virtual-time-budget=3000", "--dump-dom",
            f"{page.as_uri()}{fragment}",
        ],
        capture_output=True, text=True, timeout=120, check=True,
    )  # fmt: skip
    return json.loads(html.unescape(re.search("<title>(.*?)</title>", run.stdout, re.DOTALL)[1]))
