"""A llama-server binary as our child: its command line, its keeper, and one life of it.

It imports `errors`, `upstream.engine.process` and `upstream.engine.programs`.
"""
