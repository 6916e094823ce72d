"""Quickack for pods: the CNI plugin's stub, and the node agent that it asks. See README.md beside this file."""
