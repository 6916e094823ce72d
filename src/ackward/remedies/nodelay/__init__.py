"""Nodelay: turn Nagle's algorithm off for programs that cannot be changed, by TCP_NODELAY on their connections.

The kernel then sends a small segment at once instead of holding it until the one before is acknowledged
(``tcp_nagle_check()``). See README.md beside this file.
"""
