"""Sets one option on exactly the TCP connections of a scope, new and open ones, and takes it back: an engine.

No remedy by itself: a remedy is a plan on top that names the option (:class:`ackward.model.changes.SocketOption`).
New connections get it from steering.bpf.c when they are established, open ones through a copy of their descriptor.
What a connection had before is noted in its own socket storage, so notes live and die with their sockets.

Laws: the hook comes before the open connections, so none slips through; a note is written before its option is set;
undo takes the hook away first, then goes by the notes. Pins lie in /sys/fs/bpf/ackward/RECEIPT@NAMESPACE-COOKIE.
"""
