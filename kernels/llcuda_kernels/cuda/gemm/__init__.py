"""Products of few rows with a layer's weights; large ones on warp groups, and by NVIDIA's library.

It may import `cuda.runtime`.
"""
