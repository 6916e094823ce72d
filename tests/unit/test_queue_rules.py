"""Rules that hold SYNs: what may not be asked is no "it is gone"."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys

import pytest

_ASK = """
from ackward.errors import PrivilegeMissing
from ackward.kernel import queue_rules
from ackward.kernel.namespaces import current

rule = queue_rules.specification(network="198.18.0.0/15", interface="", first_port=1, last_port=9, queue=1)
for question in (queue_rules.there, queue_rules.delete, queue_rules.add):
    try:
        print(question(current(), 4, rule))
    except PrivilegeMissing as error:
        print(error.missing)
"""


@pytest.mark.skipif(shutil.which("iptables") is None, reason="iptables is not installed")
def test_without_the_privilege_nothing_is_taken_for_gone() -> None:
    command = [sys.executable, "-c", _ASK]
    if os.geteuid() == 0:
        command = ["setpriv", "--bounding-set=-net_admin", "--inh-caps=-net_admin", *command]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stdout.splitlines() == ["iptables may not touch rules (CAP_NET_ADMIN)"] * 3
