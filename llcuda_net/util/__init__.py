"""What every package may use: addresses, logs, terminals, quantiles, the version, and an event
loop in a background thread.

It imports only `errors`.
"""
