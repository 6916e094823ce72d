"""Keys of the legs, read from files that nobody else can read.

A key file holds 32 random bytes as 64 hexadecimal digits. Keys never stand in a configuration, on a command line or
in a log; a key is named by its id, which is made of it.
"""

from __future__ import annotations

import os
import secrets
import stat
from dataclasses import dataclass
from pathlib import Path

from ackward.errors import Refused, UsageError
from ackward.gateway.protocol_messages import KEY_SIZE, key_id

#: More is no key file.
_LONGEST_FILE = 1024
_UNUSABLE = "legs of this peer could not be authenticated"


@dataclass(frozen=True)
class Key:
    """A key and the file that it came from; its bytes never show when it is printed."""

    secret: bytes
    path: Path

    @property
    def identity(self) -> bytes:
        """Its name on the wire."""
        return key_id(self.secret)

    def __repr__(self) -> str:
        """Without the secret."""
        return f"Key({self.identity.hex()} from {self.path})"


def read_key(path: Path) -> Key:
    """The key in a file; raises :class:`UsageError` for what is no key, :class:`Refused` where others can read it."""
    try:
        # O_NONBLOCK: a FIFO must not make the gateway wait for ever.
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    except OSError as error:
        raise UsageError(
            f"the key file {path} cannot be read: {error.strerror}",
            consequence=_UNUSABLE,
            next_step=f"make one with `ackward gateway key {path}`, or copy the other gateway's",
        ) from error
    mode = os.fstat(descriptor)
    if not stat.S_ISREG(mode.st_mode):
        os.close(descriptor)
        raise UsageError(
            f"the key file {path} is no regular file",
            consequence=_UNUSABLE,
            next_step="name a file that `ackward gateway key` made",
        )
    with os.fdopen(descriptor, "rb") as file:
        if mode.st_mode & 0o077 or mode.st_uid not in (0, os.geteuid()):
            raise Refused(
                f"the key file {path} can be read or changed by others "
                f"(mode {stat.S_IMODE(mode.st_mode):04o}, owner {mode.st_uid})",
                consequence="whoever reads it can use this gateway",
                next_step=f"`chmod 600 {path}`, owned by root; make a new key if somebody may have read it",
            )
        text = file.read(_LONGEST_FILE).strip()
    try:
        secret = bytes.fromhex(text.decode("ascii"))
    except ValueError:
        secret = b""
    if len(secret) != KEY_SIZE:
        raise UsageError(
            f"the key file {path} does not hold {2 * KEY_SIZE} hexadecimal digits",
            consequence=_UNUSABLE,
            next_step=f"move it away, make one with `ackward gateway key {path}` and copy it to the other gateway",
        )
    return Key(secret, path)


def make_key(path: Path) -> Key:
    """Write a new key, readable for its owner alone; raises :class:`UsageError` where a file is already."""
    secret = secrets.token_bytes(KEY_SIZE)
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise UsageError(
            f"{path} cannot be made: {error.strerror}",
            consequence="nothing was written",
            next_step="name a new file in a directory of yours: keys are never overwritten",
        ) from error
    with os.fdopen(descriptor, "w", encoding="ascii") as file:
        file.write(secret.hex() + "\n")
        file.flush()
        os.fsync(descriptor)
    return Key(secret, path)
