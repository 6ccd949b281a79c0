"""What every package may use: addresses, logs, terminals, users' text files, quantiles, loops of
tokens, the version, and an event loop in a background thread.

It imports only `errors`.
"""
