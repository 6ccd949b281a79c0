"""llama-servers in router mode: which models one has, in which state, and having one loaded.

A router is one URL with many models, each in a process of its own. In the pool, each model is a
backend. It imports the rest of `upstream`.
"""
