"""Batches: prompts from a file, results to a file, over one rank or many, resumable at any point.

It imports `upstream`, `client` and what is below them; `bench` builds upon it.

record              what is known of one request
targets             the servers that are asked
post_process        work of the kernels on finished answers
input, output       lines to ask, each with its key; results, in order or as they come
mpi                 messages between ranks, or one rank alone
distributor         rank 0: which rank gets which line next
rank                every rank: a server, and some requests on it at once
job, report         all of it together, and what it came to
"""
