"""What a model is: its GGUF file, its fingerprint, and which upstreams serve the same one.

It imports `errors` and `upstream.interface`.
"""
