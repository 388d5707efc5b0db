import contextlib
import os
import shutil
import socket
import subprocess
import time
import urllib.request

import pytest
from playwright.sync_api import expect, sync_playwright

from backend.home import CHECKOUT

# The shell is the same engine without a browser's windows around the page, which take a sixth of the processor.
BROWSERS = ("chromium-headless-shell", "chromium", "chromium-browser", "google-chrome")
FLAGS = [
    "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
    "--disable-component-update", "--disable-sync",
]  # fmt: skip

expect.set_options(timeout=30_000)  # a busy machine takes its time


@pytest.fixture(scope="session")
def browser():
    """A real Chromium. Where there is none: a failure in CI, else a skip that says so."""
    path = next(filter(None, map(shutil.which, BROWSERS)), None)
    if path is None:
        message = "Chromium is not installed: these tests need it (apt install chromium)"
        (pytest.fail if os.environ.get("CI") else pytest.skip)(message)
    with sync_playwright() as playwright:
        instance = playwright.chromium.launch(executable_path=path, args=FLAGS)
        yield instance
        instance.close()


@pytest.fixture(scope="session")
def address(tmp_path_factory):
    """A dashboard started by the README's command on an empty home, in which no test starts a run."""
    with dashboard(tmp_path_factory) as address:
        yield address


@pytest.fixture(scope="module")
def own_address(tmp_path_factory):
    """Another one for the tests of one file, which start runs."""
    with dashboard(tmp_path_factory) as address:
        yield address


@pytest.fixture(scope="session")
def read_only_address(tmp_path_factory):
    """Another one, on an empty home of its own, that visitors may not change."""
    with dashboard(tmp_path_factory, "--read-only") as address:
        yield address


@contextlib.contextmanager
def dashboard(tmp_path_factory, *options):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    environment = os.environ | {"CERTSCOPE_HOME": str(tmp_path_factory.mktemp("home"))}
    log = tmp_path_factory.mktemp("log") / "dashboard"
    with open(log, "w") as output:
        process = subprocess.Popen(
            ["scripts/run", "--no-browser", "--port", str(port), *options],
            cwd=CHECKOUT,
            env=environment,
            stdout=output,
            stderr=output,
        )
    address = f"http://127.0.0.1:{port}"
    deadline = time.monotonic() + 180
    while True:
        try:
            urllib.request.urlopen(f"{address}/_stcore/health", timeout=1).close()
            break
        except OSError:
            assert process.poll() is None, log.read_text()
            assert time.monotonic() < deadline, log.read_text()
            time.sleep(0.2)
    assert f"Certscope: {address}" in log.read_text()
    yield address
    process.terminate()
    process.wait(60)


@pytest.fixture
def page(browser, address):
    """A page of a new visitor. Afterwards: no traceback was shown, and nothing was asked of another machine."""
    context = browser.new_context(viewport={"width": 1440, "height": 1000}, accept_downloads=True)
    page = context.new_page()
    strangers = []
    page.on("request", lambda request: strangers.append(request.url) if "127.0.0.1" not in request.url else None)
    page.set_default_timeout(30_000)
    yield page
    assert page.get_by_test_id("stException").count() == 0
    assert not [url for url in strangers if not url.startswith(("data:", "blob:"))]
    context.close()
