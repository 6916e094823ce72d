"""The one door to systemd: units of ours in its directory, and timers that end with the boot."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from ackward.errors import Unavailable

#: sd_booted(3): the directory is there if and only if systemd is the first process.
BOOTED = Path("run/systemd/system")
#: Where an administrator's units live (systemd.unit(5)).
UNITS = Path("etc/systemd/system")
#: Seconds that systemd may take for a word of ours.
_WITHIN = 60


@dataclass(frozen=True)
class Systemd:
    """systemd of this machine, or the units of one that is not running, below another ``root``."""

    root: Path = Path("/")

    @property
    def runs(self) -> bool:
        """Whether systemd is the first process here. Below another root there is none."""
        return self.root == Path("/") and (self.root / BOOTED).is_dir()

    @property
    def is_there(self) -> bool:
        """Whether units can be kept here at all."""
        return self.runs or (self.root != Path("/") and (self.root / UNITS).is_dir())

    @property
    def units(self) -> Path:
        """The directory of units."""
        return self.root / UNITS

    def control(self, *arguments: str) -> str:
        """Run ``systemctl`` and give its output; raises :class:`Unavailable` with its complaint."""
        done = self._systemctl(*arguments)
        if done.returncode != 0:
            raise Unavailable(
                f"`systemctl {' '.join(arguments)}` failed: {_last_line(done.stderr)}",
                consequence="systemd does not know what was asked of it",
                next_step="look at `systemctl status`",
            )
        return done.stdout

    def ask(self, *arguments: str) -> str:
        """The output of ``systemctl`` where a failure is an answer too: is-active, stop of what has ended."""
        return self._systemctl(*arguments).stdout.strip()

    def start_timer(self, name: str, seconds: float, command: Sequence[str], description: str) -> None:
        """Let systemd run ``command`` in so many seconds, once; both units are gone afterwards, and with the boot."""
        argv = timer_command(name, seconds, command, description)
        done = _run(argv)
        if done.returncode != 0:
            raise Unavailable(
                f"systemd took no timer: {_last_line(done.stderr)}",
                consequence="without something that ends it nothing is changed",
                next_step="look at `systemctl status`, or leave out --lease",
            )

    def _systemctl(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        where = [] if self.root == Path("/") else [f"--root={self.root}"]
        return _run(["systemctl", *where, *arguments])


def timer_command(name: str, seconds: float, command: Sequence[str], description: str) -> list[str]:
    """The command line of ``systemd-run`` for :meth:`Systemd.start_timer`."""
    return [
        "systemd-run",
        "--quiet",
        f"--unit={name}",
        f"--description={description}",
        f"--on-active={round(seconds * 1000)}ms",
        # Its default, a minute, is longer than a short lease.
        "--timer-property=AccuracySec=100ms",
        # A failed run must not keep the unit, and its name, for ever.
        "--collect",
        "--service-type=oneshot",
        *command,
    ]


def _run(argv: list[str]) -> subprocess.CompletedProcess[str]:
    tool = shutil.which(argv[0])
    if tool is None:
        raise Unavailable(
            f"{argv[0]} is not installed",
            consequence="systemd cannot be asked for anything",
            next_step="install systemd's tools",
        )
    try:
        return subprocess.run(
            [tool, *argv[1:]],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            env={**os.environ, "LC_ALL": "C.UTF-8"},
            timeout=_WITHIN,
            check=False,
        )
    except subprocess.TimeoutExpired as error:
        raise Unavailable(
            f"{argv[0]} did not answer within {error.timeout:g} s",
            consequence="nothing is known of its units",
            next_step="run the command again when `systemctl is-system-running` answers",
        ) from error


def _last_line(text: str) -> str:
    return (text.strip().splitlines() or ["no word of why"])[-1]
