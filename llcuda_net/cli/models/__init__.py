"""`llcuda models`: the models of this machine. A module per subcommand.

May import: everything below cli.
"""
