"""The kernels beside what a user would call instead, in one run, at sizes of real models.

`work` says what is timed and how, `rows`, `search`, `products` and `weights` hold the groups, each
of which runs in a process of its own (`__main__`), and `comparison` runs them and prints the table.
"""
