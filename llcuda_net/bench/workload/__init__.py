"""When to send what, decided before the run; sending it; and whether the run counts.

It imports `batch` and nothing of its siblings.
"""
