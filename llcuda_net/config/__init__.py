"""What the operator configures: settings, upstreams, users with their limits and tokens.

It imports only `llcuda_net.errors`.
"""
