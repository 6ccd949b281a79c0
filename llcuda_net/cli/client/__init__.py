"""`llcuda-client`: options, output, chat.

It imports `llcuda_net.sync` and the modules beside this package, and none of the other groups of
commands.
"""
