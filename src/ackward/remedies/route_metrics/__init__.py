"""Metrics on routes, for the remedies that are nothing else: which routes, and how to set and restore them.

Each remedy sets metrics of its own and restores only those, so the order of undo does not matter.
"""
