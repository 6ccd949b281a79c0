"""What the operator and the users give: settings, upstream tables, users and their tokens.

It imports only `llcuda_net.errors`.
"""
