"""Initcwnd: let connections begin with a larger window, by the metrics RTAX_INITCWND and RTAX_INITRWND of routes.

The kernel reads them when a connection is established (``tcp_init_cwnd()``) and when one begins again after a
rest (``tcp_cwnd_restart()``). See README.md beside this file.
"""
