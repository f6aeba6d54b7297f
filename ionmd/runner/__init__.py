"""Tests in motion: deliveries and samples in, averages and readings out.

Stateful, but free of I/O, threads and clocks.
"""
