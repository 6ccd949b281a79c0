"""The CPU paths: Numba's ``njit(parallel=True)``, or NumPy where that is as fast.

Each takes C-contiguous arrays of the right type, already checked.
It may import `reference`.
"""
