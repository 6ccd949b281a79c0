"""Engines: what runs a model, in a supervised process of its own.

That is llama.cpp's server, either built in (`child.py`) or a llama-server binary (`binary`); which
of them, `programs` chooses. It imports `errors`, `config`, `upstream.model` and, to see whether a
llama-server is healthy, `upstream.llama.transport`.
"""
