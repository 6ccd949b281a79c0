"""Bytes of blocks to planes and back: float16 pairs, a scale and codes, and any fields.

It may import `cuda.runtime` and `arrays`.
"""
