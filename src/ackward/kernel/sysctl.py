"""Settings of one network namespace under /proc/sys/net, by their names as sysctl(8) has them."""

from __future__ import annotations

import errno
from pathlib import Path

from ackward.errors import PrivilegeMissing, Unavailable
from ackward.kernel.namespaces import Namespace, call_inside

_ROOT = Path("/proc/sys")


def read(namespace: Namespace, name: str) -> str | None:
    """The value; None where this kernel does not have the setting."""
    try:
        return call_inside(namespace, _path(name).read_text, encoding="ascii").strip()
    except FileNotFoundError as error:
        if error.filename == str(_path(name)):
            return None
        raise  # the namespace itself is gone


def write(namespace: Namespace, name: str, value: str) -> None:
    """Set it. Raises :class:`PrivilegeMissing` or :class:`Unavailable`."""
    try:
        call_inside(namespace, _path(name).write_text, value, encoding="ascii")
    except OSError as error:
        if error.errno in (errno.EPERM, errno.EACCES):
            raise PrivilegeMissing.for_this_command(
                f"{name} may not be written (CAP_NET_ADMIN)", consequence="this change was not made"
            ) from error
        raise Unavailable(
            f"{name}={value} cannot be set ({error.strerror})",
            consequence="this change was not made",
            next_step=f"look at {_path(name)}: this kernel may not have it, or the container has /proc/sys read-only",
        ) from error


def _path(name: str) -> Path:
    return _ROOT / name.replace(".", "/")
