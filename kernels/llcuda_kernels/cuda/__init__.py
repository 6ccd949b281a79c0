"""The CUDA paths, and what CUDA alone has. `shim` is the only importer of numba.cuda."""
