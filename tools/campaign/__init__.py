"""The harness of the campaigns: processes, clients, ledger, checks, and the command line.

tools/crash, tools/proxy, tools/chaos and tools/soak build on it. It may import llcuda_net,
tools/overhead and tools/synthetic.
"""
