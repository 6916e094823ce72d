"""Quickack: let one end acknowledge at once, by the metric RTAX_QUICKACK of the route it answers on.

The kernel then sends each ACK without delay (``__tcp_ack_snd_check()`` through ``tcp_in_quickack_mode()``),
so that a peer whose Nagle holds data is never kept waiting. See README.md beside this file.
"""
