"""Quantised weights: int4 in groups, and the blocks of GGUF files. It may import `cpu.jit`."""
