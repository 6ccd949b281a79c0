"""`llcuda-client`: options, output, chat.

It imports everything but the other groups of commands.
"""
