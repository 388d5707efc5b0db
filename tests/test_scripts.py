"""The two commands of the README, where something is in their way."""

import contextlib
import os
import shutil
import socket
import subprocess
import time
import urllib.request

import pytest

from backend.home import CHECKOUT
from backend.store.publish import publish


def script(*command, cwd=CHECKOUT, **environment):
    result = subprocess.run(
        command, cwd=cwd, capture_output=True, text=True, check=False, timeout=120, env=os.environ | environment
    )
    assert result.returncode != 0
    return result.stderr


@pytest.fixture
def fresh(tmp_path):
    """A checkout's scripts without an environment."""
    for name in ("scripts", "backend/requirements.txt", "tests/requirements.txt", "requirements.txt"):
        source, target = CHECKOUT / name, tmp_path / "fresh" / name
        target.parent.mkdir(parents=True, exist_ok=True)
        (shutil.copytree if source.is_dir() else shutil.copy)(source, target)
    return tmp_path / "fresh"


def test_a_busy_port(home):
    with socket.socket() as busy:
        busy.bind(("127.0.0.1", 0))
        busy.listen()
        port = busy.getsockname()[1]
        error = script("scripts/run", "--no-browser", "--port", str(port))
    assert error == (
        f"certscope: 127.0.0.1 port {port} cannot be used (Address already in use). "
        f"Try another one: ./scripts/run --port {port % 65535 + 1}\n"
    )


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (["--prot", "1"], "there is no option --prot"),
        (["--port", "99999"], "--port must be a number from 1 to 65535, not 99999"),
        (["--port", "x"], "--port must be a number"),
        (["--host", "256.1.1.1"], "256.1.1.1 port 8501 cannot be used"),
    ],
)
def test_options_that_cannot_be(home, options, says):
    error = script("scripts/run", *options)
    assert says in error
    assert error.count("\n") == 1


def test_a_python_that_is_too_old(fresh):
    old = fresh / "old-python"
    old.write_text('#!/bin/sh\n[ "$1" = --version ] && echo "Python 3.9.2" && exit\nexit 1\n')
    old.chmod(0o755)
    error = script("scripts/run", cwd=fresh, PYTHON=str(old))
    assert error.startswith(f"certscope: Python 3.11 or newer is needed, and {old} is Python 3.9.2.")
    assert error.count("\n") == 1


def test_no_network(fresh):
    """The index is a closed port; the last line says what to do."""
    (fresh / "pip.conf").write_text("[global]\nretries = 0\nindex-url = http://127.0.0.1:9/simple\n")
    error = script(
        "scripts/run", cwd=fresh, PIP_CONFIG_FILE=str(fresh / "pip.conf"), PIP_FIND_LINKS="",
        UV_INDEX_URL="http://127.0.0.1:9/simple", UV_HTTP_RETRIES="0",
    )  # fmt: skip
    last = error.strip().splitlines()[-1]
    assert last.startswith("certscope: uv could not be installed")
    assert "Is there a network" in last


def test_a_full_disk(fresh):
    """`df` is replaced by one that sees 1 GB: that nothing is tried then is what counts."""
    fake = fresh / "bin" / "df"
    fake.parent.mkdir()
    fake.write_text("#!/bin/sh\necho header; echo fs 9 9 1048576 1% /\n")
    fake.chmod(0o755)
    error = script("scripts/run", cwd=fresh, PATH=f"{fake.parent}:{os.environ['PATH']}")
    assert "installing takes 8 GB, and 1 GB are free" in error
    assert error.count("\n") == 1
    assert not (fresh / ".venv").exists()


def test_a_store_that_cannot_be_written_is_shown_as_it_was(home):
    """A full disk, say: the dashboard starts all the same."""
    publish()
    (home / ".results.duckdb.next" / "in the way").mkdir(parents=True)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = ["scripts/run", "--no-browser", "--port", str(port)]
    with subprocess.Popen(
        command, cwd=CHECKOUT, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
    ) as process:
        deadline = time.monotonic() + 100
        while process.poll() is None and time.monotonic() < deadline:
            with contextlib.suppress(OSError):
                urllib.request.urlopen(f"http://127.0.0.1:{port}/_stcore/health", timeout=1).close()
                break
            time.sleep(0.2)
        assert process.poll() is None
        process.terminate()
        said = process.communicate(timeout=60)[1]
    assert "could not be brought up to date" in said
    assert "starts with what is published" in said


def test_the_bench_of_the_store_asks_what_the_store_answers(home):
    from scripts.benchmarks.store import measure

    asked = measure(20, 50)
    assert asked["runs"] == 20
    assert len(asked["queries_ms"]) == 10
