"""Quantised weights: int4 in groups as AWQ and GPTQ store them, and the blocks of GGUF files.

It may import what an operation may: `runtime`, `cuda`, `cpu`, `arrays`, `errors`.
"""
