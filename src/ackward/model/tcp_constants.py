"""TCP's constants as Linux has them: their names in include/net/tcp.h are these with ``TCP_``. Times in nanoseconds."""

from __future__ import annotations

from typing import Final

#: HZ / 25: a delayed ACK waits that long at least, whatever ``ato`` says. TCP_ATO_MIN, the first ato, is the same.
DELACK_MIN_NS: Final = 40_000_000
#: HZ / 5; a socket's TCP_DELACK_MAX_US lowers it.
DELACK_MAX_NS: Final = 200_000_000
#: HZ / 5: the shortest retransmission timeout; a route's ``rto_min`` and a socket's TCP_RTO_MIN_US change it.
RTO_MIN_NS: Final = 200_000_000
#: The most ACKs that a connection's quick mode may have before it.
MAX_QUICKACKS: Final = 16
#: Bytes: what is taken for a full segment until one came (tcp_initialize_rcv_mss()).
MSS_DEFAULT: Final = 536
#: Segments of the initial window (RFC 6928 section 2).
INIT_CWND: Final = 10

#: The protocol of MPTCP's sockets (include/uapi/linux/in.h); not every Python's ``socket`` has it.
IPPROTO_MPTCP: Final = 262
