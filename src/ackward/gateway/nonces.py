"""The nonces of this gateway's legs, which its own exit knows again.

A key stands for both ends of a leg. Whoever sits on the path could lead a leg of this gateway back to its own exit,
where it would pass for the peer's: the mark in its nonce tells. The secret is made before the workers are forked, so
all of one gateway share it; two gateways on one host do not.
"""

from __future__ import annotations

import hmac
import os
from hashlib import sha256
from typing import Final

_SECRET: Final = os.urandom(32)


def fresh(size: int) -> bytes:
    """``size`` bytes (32: a nonce's) that were never used before, half of them a mark of this gateway."""
    random = os.urandom(size // 2)
    return random + _mark(random)


def is_ours(nonce: bytes) -> bool:
    """Whether this gateway has made it."""
    half = len(nonce) // 2
    return hmac.compare_digest(nonce[half:], _mark(nonce[:half]))


def _mark(random: bytes) -> bytes:
    return hmac.digest(_SECRET, random, sha256)[: len(random)]
