"""In what the bypass is declared to differ from TCP: no random dialogue makes these calls, and each is shown to differ still.

When a kernel or the bypass mends one, test_bypass_selftest.py asks for the declaration to go.
"""

from __future__ import annotations

from ackward.model.bypass import Hazard

#: Hazard -> the calls that show it. docs/bypass.md says why, and whom it concerns.
DECLARED: dict[Hazard, set[str]] = {
    Hazard.WAKEUP: {"wait"},
    Hazard.WAITALL: {"wait for all"},
    Hazard.SPLICE: {"splice out"},
    Hazard.PEEK_OFFSET: {"peek from"},
    Hazard.RCVLOWAT: {"least"},
    Hazard.OOB: {"send urgent", "receive urgent", "at mark", "urgent inline"},
    Hazard.CORK: {"cork", "send more"},
    Hazard.INQ: {"receive with rest"},
    Hazard.ZEROCOPY_SEND: {"send zero-copy"},
    Hazard.ZEROCOPY_RECEIVE: {"receive zero-copy"},
    Hazard.CLOSE_UNREAD: set(),  # a close when all was read is no difference
    Hazard.RESET: {"reset"},
    Hazard.SHUT_READ: {"shut read", "shut both"},
}
