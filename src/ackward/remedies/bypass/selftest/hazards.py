"""The hazards of joined sockets: where a sockmap is known to differ from TCP, or might.

Each is a few short dialogues. A program that makes none of these calls cannot tell the difference.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from ackward.model.bypass import Hazard
from ackward.remedies.bypass.selftest.dialogue import Dialogue, talk
from ackward.remedies.bypass.selftest.ways import Kind, Opening


@dataclass(frozen=True)
class Trial:
    """What is tried for one hazard: calls that may go another way, and whom that would harm."""

    hazard: Hazard
    summary: str
    dialogues: tuple[Dialogue, ...]
    kind: Kind = field(default_factory=Kind)


_TALK = talk("c send 10; s receive 100; s send 10; c send 10; c send 10; s drain; c drain; c close; s drain")

TRIALS: tuple[Trial, ...] = (
    Trial(
        Hazard.FIONREAD,
        "FIONREAD tells how much can be read (nginx, Java's available(), .NET)",
        (
            talk("c send 100; s waiting 40; s peek 40; s receive 40; s waiting 40; s receive 40"),
            talk("c send 10; c send 20; s waiting; s drain; s waiting"),
            talk("c send 10; c shut write; s waiting; s drain; s waiting"),
        ),
    ),
    Trial(
        Hazard.BLOCKED_READER,
        "a program that is inside recv() when bytes come is woken",
        (
            talk("s wait 100; c send 10; s wait 100 ends"),
            talk("c send 10; s receive 100; s wait 100; c send 10; s wait 100 ends"),
            talk("c wait 100; s send 10; c send 10; s receive 20; c wait 100 ends"),
            talk("s wait 100; c shut write; s wait 100 ends"),
        ),
    ),
    Trial(
        Hazard.WAKEUP,
        "a blocking recv() ends with bytes only, also when another thread's send() may go on or a FIN is acknowledged",
        (
            talk("s wait 100; s fill; c drain; c send 10; s wait 100 ends"),
            talk("c wait 100; c shut write; s send 10; c wait 100 ends"),
        ),
    ),
    Trial(
        Hazard.WAITALL,
        "recv(MSG_WAITALL) waits for as many bytes as were asked for (fread-like readers, some RPC libraries)",
        (
            talk("s wait for all 20; c send 10; c send 10; s wait for all 20 ends"),
            talk("c send 10; s wait for all 20; c send 10; s wait for all 20 ends"),
            talk("s wait for all 20; c send 10; c shut write; s wait for all 20 ends"),
        ),
    ),
    Trial(
        Hazard.ORDER,
        "bytes arrive in the order in which they were written, also when the writer was stopped in between",
        (
            talk("c fill; s receive 100000; s drain; c send 1000; s drain"),
            talk("c fill; s drain; c fill; s drain; c send 10; s drain"),
            talk("c send 100000; c send 1; s drain; c send 1; s drain"),
            talk(
                "c send 1; c send 1; c send 1; c send 1; c send 1; c send 1; c send 1; c send 1; "
                "c send 1; c send 1; c send 1; c send 1; c send 1; c send 1; c send 1; c send 1; "
                "c send 1; c send 1; c send 1; c send 1; c send 1; c send 1; c send 1; c send 1; "
                "c send 1; c send 1; c send 1; c send 1; c send 1; c send 1; c send 1; c send 1; "
                "c send 1; c send 1; c send 1; c send 1; c send 1; c send 1; c send 1; c send 1; "
                "c send 1; c send 1; c send 1; c send 1; c send 1; c send 1; c send 1; c send 1; "
                "c send 1; c send 1; c send file 5000; c send 3; s drain"
            ),
        ),
    ),
    Trial(
        Hazard.HALF_CLOSE,
        "what was written before shutdown() is read before the end of the stream; the other direction stays open",
        (
            talk(
                "c send 10; c shut write; s receive 100; s receive 100; s send 7; c receive 100; "
                "s close; c receive 1"
            ),
            talk("c shut write; s receive 1; s send 10; s close; c drain"),
            talk("c fill; c shut write; s drain; s drain; s send 3; c receive 3; s close; c receive 1"),
            talk("c send 10; c close; s receive 4; s receive 100; s receive 1"),
        ),
    ),
    Trial(
        Hazard.SHUT_READ,
        "shutdown(SHUT_RD) ends one's own reading only",
        (
            talk("s shut read; s receive 1; c send 10; s receive 100"),
            talk("c send 10; s shut read; s receive 4; s receive 100"),
            talk("c shut both; s receive 1; s send 1; s send 1; s error"),
            talk("s wait 100; s shut read; s wait 100 ends"),
        ),
    ),
    Trial(
        Hazard.CLOSE_UNREAD,
        "closing with unread data tells the other end so (ECONNRESET)",
        (
            talk("c send 10; s close; c receive 10; c send 5; c error"),
            talk("c send 10; s receive 4; s close; c receive 10; c send 5"),
            talk("c send 10; s drain; s close; c receive 10; c send 5; c send 5"),
            talk("s close; c send 5; c send 5; c error; c receive 1"),
        ),
    ),
    Trial(
        Hazard.RESET,
        "SO_LINGER 0 and what the other end sees of it, call by call",
        (
            talk("c send 10; c reset; s error; s receive 100; s send 10"),
            talk("c reset; s send 10; s send 10; s receive 10"),
            talk("c send 10; c reset; s receive 100; s receive 100; s error"),
            talk("s wait 100; c reset; s wait 100 ends"),
        ),
    ),
    Trial(
        Hazard.SLOW_READER,
        "a writer is stopped when nobody reads, is told when it may go on, and nothing is lost",
        (
            talk("c fill; c poll; s drain; c poll; s drain"),
            talk("c fill; s fill; c drain; s drain; c send 10; s drain"),
            talk("c fill; s receive 4096; s drain; c fill; c close; s drain"),
        ),
    ),
    Trial(
        Hazard.SPLICE,
        "splice() between the socket and a pipe (HAProxy, relays)",
        (
            talk("c send 10; s splice out 4; s splice out 40; s splice out 1"),
            talk("c splice in 30; s receive 100; c shut write; s splice out 1"),
        ),
    ),
    Trial(
        Hazard.SENDFILE,
        "sendfile() and MSG_SPLICE_PAGES (web servers)",
        (talk("c send file 50000; s receive 4000; s drain; c send 1; s drain"),),
    ),
    Trial(
        Hazard.EPOLL_LEVEL,
        "events by level: what poll() and epoll say is so",
        (
            talk(
                "c send 10; s poll; s receive 5; s poll; s receive 100; s poll; c shut write; s poll; "
                "s receive 1; s poll"
            ),
            talk("c fill; c poll; s drain; s drain; c poll"),
        ),
    ),
    Trial(
        Hazard.EPOLL_EDGE,
        "events by edge: one for everything that comes, none for what is there already",
        (talk("c send 10; c send 10; s receive 5; c send 10; s drain; c shut write; s receive 1; s close"),),
    ),
    Trial(
        Hazard.PEEK,
        "MSG_PEEK shows and takes nothing",
        (
            talk("c send 10; s peek 4; s peek 40; s receive 3; s peek 40"),
            talk("c send 10; c send 10; s peek 15; s receive 15; s peek 15"),
        ),
    ),
    Trial(
        Hazard.PEEK_OFFSET,
        "SO_PEEK_OFF: MSG_PEEK goes on where it left off (CRIU, some proxies)",
        (talk("s peek from; c send 10; s peek 4; s peek 40"),),
    ),
    Trial(
        Hazard.RCVLOWAT,
        "SO_RCVLOWAT: no event before so many bytes wait",
        (talk("s least 10; c send 5; c send 5; s receive 3"),),
    ),
    Trial(
        Hazard.RCVTIMEO,
        "SO_RCVTIMEO ends a wait",
        (talk("s receive in time 10; c send 3; s receive in time 10"),),
    ),
    Trial(
        Hazard.OOB,
        "MSG_OOB, urgent data (telnet, rlogin, FTP's ABOR)",
        (
            talk("c send 2; c send urgent; s receive urgent; s receive 10"),
            talk(
                "s urgent inline 1; c send 2; c send urgent; s at mark; s receive 10; s at mark; s receive 10"
            ),
        ),
    ),
    Trial(
        Hazard.TRUNC,
        "MSG_TRUNC throws bytes away",
        (talk("c send 6; s discard 3; s receive 10; s discard 1"),),
    ),
    Trial(
        Hazard.SCATTERED,
        "readv() and writev()",
        (talk("c send gathered 10; s receive scattered 6; s receive scattered 60"),),
    ),
    Trial(
        Hazard.CORK,
        "TCP_CORK and MSG_MORE hold bytes back until there is more",
        (
            talk("c cork 1; c send 10; s poll; c cork; s receive 40"),
            talk("c send more 10; s poll; c send 3; s receive 40"),
        ),
    ),
    Trial(
        Hazard.INQ,
        "TCP_INQ tells how much is left beside what is read (some RPC libraries)",
        (talk("c send 10; s receive with rest 3; s receive with rest 30"),),
    ),
    Trial(
        Hazard.ZEROCOPY_SEND,
        "MSG_ZEROCOPY tells on the error queue when a buffer is free again; who waits for that would wait for ever",
        (talk("c send zero-copy 10; c poll; s receive 30"),),
    ),
    Trial(
        Hazard.ZEROCOPY_RECEIVE,
        "TCP_ZEROCOPY_RECEIVE",
        (talk("c send 10; s receive zero-copy 30; s receive 30"),),
    ),
    Trial(
        Hazard.MPTCP,
        "MPTCP connections work, and are left alone",
        (talk("c send 10; s receive 100; s send 10; c receive 100; c close; s receive 1"),),
        Kind(mptcp=True),
    ),
    Trial(
        Hazard.FAST_OPEN,
        "bytes that come with the SYN",
        (_TALK,),
        Kind(opening=Opening.FAST_OPEN),
    ),
    Trial(
        Hazard.RECONNECT,
        "a socket that is connected anew does not read what was left unread before (connect(AF_UNSPEC))",
        (_TALK,),
        Kind(opening=Opening.RECONNECTED),
    ),
    Trial(
        Hazard.RACE,
        "bytes that are written before the connection is accepted",
        (_TALK,),
        Kind(opening=Opening.UNACCEPTED),
    ),
    Trial(
        Hazard.DEFER_ACCEPT,
        "a connection that is accepted with its first bytes (TCP_DEFER_ACCEPT)",
        (_TALK,),
        Kind(opening=Opening.DEFERRED),
    ),
    Trial(
        Hazard.KTLS,
        "a program that hands its connection to the kernel's TLS (TCP_ULP)",
        (
            talk("c layer; c send 10; s receive 100; c send 10; s drain"),
            talk("c send 10; s layer; c send 10; s drain; s send 10; c drain"),
        ),
    ),
)
