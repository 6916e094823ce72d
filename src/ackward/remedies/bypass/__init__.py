"""Bypass: what one program writes goes straight into the receive queue of another on the same host.

For connections within this host, of unmodified programs. See README.md beside this file.
"""
