"""The CUDA paths: one module per operation, which holds its kernels and launches them.

It may import `cuda.primitives` and `cuda.runtime`, `cpu` where the host is quicker, `errors` and
`arrays`. It never imports the operations that call it.
"""
