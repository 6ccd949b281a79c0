"""What bench_kernels.py is made of."""
