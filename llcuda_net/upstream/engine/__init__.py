"""The built-in engine: llama.cpp's own server in a supervised child process.

It imports `errors` and `upstream.model`.
"""
