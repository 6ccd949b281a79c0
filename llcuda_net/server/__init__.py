"""llcuda-server: the gateway between sessions and generations, and the process around it.

It imports everything but `cli`.
"""
