"""Products of few rows with a layer's weights, and large products by NVIDIA's library.

It may import `cuda.runtime`.
"""
