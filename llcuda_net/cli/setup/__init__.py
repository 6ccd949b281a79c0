"""`llcuda setup`: from an installed llcuda to a server that runs, with its settings in a file.

It looks at the machine (`survey`), asks (`questions`), makes texts (`config_text`, `units`), and
writes them (`config_file`); nothing of the server imports it.
"""
