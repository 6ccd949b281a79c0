"""Kernels compiled, launched and simulated, and arrays in the GPU's memory. No operation is here.

`shim` is the only importer of numba.cuda. It may import `errors` and `arrays`.
"""
