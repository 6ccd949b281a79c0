"""Batches: prompts from a file, results to a file, over one rank or many, resumable at any point.

lines      the input: what each line asks, and the key by which it is known
output     the results: in order or as they come; what is there already
hand_out   rank 0: who gets which line next, and what becomes of what came back
rank       every rank: a server, and so many requests on it at once
report     what it came to
job        all of it together
"""
