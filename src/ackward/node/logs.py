"""The agent's log: one JSON object a line on stderr, with the fields of what happened.

A line that tells of an error, of problems or of complaints is a warning, so that what needs somebody can be asked for.
Names of pods are in it; annotations, tokens and configurations are not. JSON escapes what a hostile name may hold.
"""

from __future__ import annotations

import json
import logging
import sys
from datetime import UTC, datetime
from typing import TextIO

LOG = logging.getLogger("ackward.node")
_OF_WARNINGS = frozenset({"error", "problems", "complaints"})


class _Lines(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        line: dict[str, object] = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "event": record.getMessage(),
        }
        line |= getattr(record, "fields", {})
        if record.name != LOG.name:
            line["logger"] = record.name
        if record.exc_info:
            line["error"] = self.formatException(record.exc_info)
        return json.dumps(line, default=str)


def set_up(stream: TextIO = sys.stderr) -> None:
    """Let everything that is logged in this process become such lines; libraries only from warnings on."""
    handler = logging.StreamHandler(stream)
    handler.setFormatter(_Lines())
    logging.basicConfig(handlers=[handler], level=logging.WARNING, force=True)
    logging.captureWarnings(capture=True)
    logging.raiseExceptions = False  # a log that nobody reads any more does not stop the agent
    LOG.setLevel(logging.INFO)


def tell(event: str, **fields: object) -> None:
    """Log an event with its fields; those that are None, empty or false are left out."""
    told = {name: value for name, value in fields.items() if value not in (None, "", (), [], False)}
    level = logging.INFO if _OF_WARNINGS.isdisjoint(told) else logging.WARNING
    LOG.log(level, event, extra={"fields": told})
