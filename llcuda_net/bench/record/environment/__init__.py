"""What measured: the computer, its graphics processors, and llcuda itself.

Each gives null where something is not known, with the reason in `unknown`. It imports `energy`.
"""
