"""What is done with finished results: certainty, embeddings, search by meaning.

It imports whatever is below it in `tests/test_layout.py`; `telemetry` and `bench` are beside it.
"""
