"""What every package may use: addresses, logs, terminals, the version, an event
loop in a background thread.

It imports only `errors`.
"""
