"""Local models that are served: which are loaded, which leave, and their processes.

`policy` decides and `loads` judges loads, both without I/O; `state` has what they are asked about.

May import: upstream and what is below it.
"""
