"""Upstreams: llama-servers and the built-in engine, their slots, their health, the pool of them.

It imports `errors`, `util` and `config`, and knows neither sessions nor generations.
"""
