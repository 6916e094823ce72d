"""The image's steps, run here as deploy/Dockerfile runs them: no container engine is to be had in CI."""

from __future__ import annotations

import os
import re
import subprocess
import sys

from tests.cluster.containerd import PROJECT

#: What a build may take; nobody shall wait for a test that hangs on a download.
MOST_SECONDS = 120
DOCKERFILE = (PROJECT / "deploy" / "Dockerfile").read_text()


def run(script: str, *arguments: object) -> str:
    """Run one step; fails with its words."""
    done = subprocess.run(
        [str(PROJECT / "scripts" / script), *map(str, arguments)],
        env={**os.environ, "PYTHON": sys.executable},
        capture_output=True,
        text=True,
        timeout=MOST_SECONDS,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_the_wheel_installs_into_a_clean_prefix_and_runs_there(tmp_path):
    run("image/build.sh", tmp_path / "wheels")
    run("image/install.sh", tmp_path / "wheels", tmp_path / "prefix")
    said = run("image/smoke.sh", tmp_path / "prefix")
    assert re.search(r"^ackward \d", said)
    assert re.search(r"^\d+ modules, \d+ BPF objects, ackward-cni-", said, re.MULTILINE)
    # It is the wheel that ran, not this working tree.
    code = "import ackward; print(ackward.__file__)"
    where = subprocess.run(
        [tmp_path / "prefix" / "bin" / "python", "-c", code],
        check=True,
        capture_output=True,
        text=True,
        cwd="/",
    )
    assert where.stdout.startswith(str(tmp_path))


def test_the_image_is_made_by_these_scripts_and_nothing_else():
    steps = re.findall(r"^RUN (.+)$", DOCKERFILE, re.MULTILINE)
    scripts = {found[1] for step in steps if (found := re.match(r"(?:/opt/)?scripts/(\S+)", step))}
    assert scripts == {"setup.sh", "image/build.sh", "image/install.sh", "image/smoke.sh"}
    rest = [step for step in steps if "scripts/" not in step]
    assert rest == ["python3 -m venv /opt/build && /opt/build/bin/pip install --quiet hatchling"]
    setup = (PROJECT / "scripts" / "setup.sh").read_text()
    for what in re.findall(r"setup\.sh (\w+)", DOCKERFILE):
        assert f"\n{what}) need=" in setup


def test_what_is_copied_is_there_and_not_ignored():
    ignored = (PROJECT / ".dockerignore").read_text().split("\n")
    for source in re.findall(r"^COPY (?!--from)(\S+)", DOCKERFILE, re.MULTILINE):
        assert (PROJECT / source).exists()
        assert source not in ignored
    for needed in ("src", "hatch_build.py", "pyproject.toml", "README.md", "LICENSE", "LICENSES", "scripts"):
        assert (PROJECT / needed).exists()
        assert needed not in ignored
