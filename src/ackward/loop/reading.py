"""The tables of a diagnosis, from a capture or from the directory where they were stored."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Sequence
from pathlib import Path

import polars as pl

from ackward.errors import OutputFailed, UnknownName
from ackward.loop.analyzing import analyze
from ackward.report.tables import NAMES, Tables, tables


def read(
    path: str | Path | Sequence[str | Path],
    *,
    port: int | None = None,
    host: str | None = None,
    flow: str | Sequence[str] | None = None,
    vxlan: int | None = None,
) -> Tables:
    """The tables ``segments``, ``flows``, ``exchanges`` and ``findings`` as Polars lazy frames.

    ``path`` names captures, which are diagnosed now (``port``, ``host``, ``flow`` and ``vxlan`` as in :func:`analyze`),
    or a directory that ``ackward analyze --parquet`` wrote, of which nothing is read before it is asked for.
    """
    if isinstance(path, (str, Path)):
        kept = [name for name in NAMES if _file(Path(path), name).is_file()]
        if kept:
            return _stored(Path(path), kept)
        path = [path]
    return tables(analyze(path, port=port, host=host, flow=flow, vxlan=vxlan))


def _stored(directory: Path, kept: list[str]) -> Tables:
    missing = [_file(directory, name).name for name in NAMES if name not in kept]
    if missing:
        raise UnknownName(
            f"{directory} lacks {', '.join(missing)}",
            consequence="nothing was read",
            next_step="write all four tables again with `ackward analyze ... --parquet`",
        )
    return Tables(**{name: pl.scan_parquet(_file(directory, name)) for name in NAMES})


def store(found: Tables, directory: Path) -> None:
    """Write the tables as Parquet into ``directory``, all or none: what was there before stays until all are written.

    Raises :class:`OutputFailed`.
    """
    made = not directory.exists()
    partial = None
    written = False
    try:
        directory.mkdir(parents=True, exist_ok=True)
        partial = Path(tempfile.mkdtemp(prefix=".", suffix=".partial", dir=directory))
        for name in NAMES:
            table: pl.LazyFrame = getattr(found, name)
            table.sink_parquet(_file(partial, name), compression="zstd")
        for name in NAMES:
            _file(partial, name).replace(_file(directory, name))
        written = True
    except (OSError, pl.exceptions.PolarsError) as error:
        raise OutputFailed(
            f"the tables could not be written into {directory} ({getattr(error, 'strerror', None) or error})",
            consequence="none was written; what was there before is untouched",
            next_step="choose another directory or free some space",
        ) from error
    finally:
        unfinished = directory if made and not written else partial
        if unfinished:
            shutil.rmtree(unfinished, ignore_errors=True)


def _file(directory: Path, name: str) -> Path:
    return directory / f"{name}.parquet"
