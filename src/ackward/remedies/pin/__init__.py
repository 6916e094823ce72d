"""Acknowledge at once on sockets that a program has marked: what :func:`ackward.pin_quickack` changes on the host."""
