"""The choice of slots, measured in front of a real llama-server and simulated against an oracle.

May import tools/load and tools/overhead, of the product what chooses slots, and the protocol core.
"""
