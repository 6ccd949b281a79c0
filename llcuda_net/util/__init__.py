"""What every package may use: addresses, logs, terminals, the version.

It imports only `errors`.
"""
