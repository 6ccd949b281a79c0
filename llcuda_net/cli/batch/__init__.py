"""`llcuda batch`, `llcuda infer` and `llcuda-mpi`: many prompts, over MPI ranks."""
