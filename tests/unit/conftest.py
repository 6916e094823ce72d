"""What several unit tests start from."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from ackward.capture.reading import WireCapture, read_captures
from ackward.capture.sources import Source


@pytest.fixture(scope="module")
def read(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., WireCapture]:
    """Reads the bytes of a capture file, with the options of :func:`read_captures`."""
    path = tmp_path_factory.mktemp("captures") / "capture"

    def reading(data: bytes, **options: object) -> WireCapture:
        path.write_bytes(data)
        return read_captures([Source("capture", path)], **options)  # type: ignore[arg-type]

    return reading
