"""A llama-server binary as our child: its command line, its keeper, and one life of it.

It imports `errors`, `config`, `upstream.engine.process`, `upstream.engine.programs` and
`upstream.llama.transport`.
"""
