"""Writes docs/*.schema.json from the models; ``--check`` compares instead and exits 1 if it is stale."""

from __future__ import annotations

import json
import sys
from pathlib import Path

from pydantic import BaseModel

from ackward.model.bypass import Capabilities
from ackward.model.bypass_lab import BypassReport
from ackward.model.comparison import Comparison
from ackward.model.doctor import DoctorReport
from ackward.model.fixing import FixReport, StatusReport, UndoReport
from ackward.model.gateway_status import GatewayStatus
from ackward.model.lab import LabReport
from ackward.model.node import NodeChange, NodeStatus
from ackward.model.ocean import OceanReport
from ackward.model.prediction import AckPrediction
from ackward.model.proof import Proof
from ackward.model.report import Report
from ackward.model.sockets import SocketReport
from ackward.model.split import SplitPrediction
from ackward.model.toggle import ToggleReport
from ackward.model.trace import TraceLine

DOCS = Path(__file__).parent.parent / "docs"
SCHEMAS: dict[str, type[BaseModel]] = {
    "report": Report,
    "lab": LabReport,
    "doctor": DoctorReport,
    "comparison": Comparison,
    "trace": TraceLine,
    "sockets": SocketReport,
    "quickack-toggle": ToggleReport,
    "prediction": AckPrediction,
    "split": SplitPrediction,
    "bypass-capabilities": Capabilities,
    "bypass": BypassReport,
    "gateway": GatewayStatus,
    "ocean": OceanReport,
    "node-status": NodeStatus,
    "node-change": NodeChange,
    "fix": FixReport,
    "proof": Proof,
    "status": StatusReport,
    "undo": UndoReport,
}


def main(arguments: list[str]) -> int:
    """Write or check all schemas."""
    stale = 0
    for name, model in SCHEMAS.items():
        path = DOCS / f"{name}.schema.json"
        text = json.dumps(model.model_json_schema(by_alias=True), indent=2) + "\n"
        if "--check" not in arguments:
            path.write_text(text)
        elif not path.exists() or path.read_text() != text:
            print(f"{path} is stale: run `make layout`")
            stale = 1
    return stale


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
