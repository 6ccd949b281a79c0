"""What a measurement leaves: a document by a published schema, and every request's times.

Nothing here is guessed: what is not known is null, and `unknown` beside it says why.

environment  the computer that measured, its graphics processors, and llcuda's own version
served       what was measured, as far as it says
sent         what was sent, with a digest
privacy      hosts, paths and keys are taken out of what is written
canonical    the one text of a document (RFC 8785), and its digest
schema       whether a document is as `schema.json` says
seal         the last steps before a document is written
differences  what two documents are of, and where it is not the same
requests     every request's times, as JSONL or CSV
consistency  whether a document agrees with itself
recompute    the figures again, from every request's times
headline     a document's figures in one line
badge        the first of them as a picture

It imports `statistics`, and what `bench` may.
"""
