"""What every package may use: addresses, logs, terminals, the version of the software.

It imports only `errors`.
"""
