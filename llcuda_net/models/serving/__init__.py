"""Local models that are served: which are loaded, which leave, and their processes.

May import: upstream and what is below it.
"""
