"""Parts that kernels of several operations are made of: reductions, rows, the k greatest, a scan.

It may import `cuda.runtime`, and what that may import.
"""
