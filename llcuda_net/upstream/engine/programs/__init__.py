"""What can run a model here: the built-in engine, or a llama-server, and which of them is used.

It imports `errors` and `config`, and nothing of the engine that runs them.
"""
