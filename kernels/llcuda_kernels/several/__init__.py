"""Vectors over several GPUs: of one process (`one_process`), or of several ranks (`sharded`).

It may import what is below it: `vectors` and everything beneath.
"""
