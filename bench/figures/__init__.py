"""Figures of the whole daemon: real processes, the real libusb over the shim, files and sockets looked at from outside.

`python -m bench.figures [--only NAME] [--quick] [--json]`; each file is one family of rows with its targets.
"""
