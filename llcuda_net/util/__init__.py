"""What every package may use: addresses, logs, terminals, quantiles, the version.

It imports only `errors`.
"""
