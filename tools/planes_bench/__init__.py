"""Parts of bench_planes.py: real states of a KV cache, and how well they compress."""
