"""The rows nearest to queries: scored, compared, and the best of them kept.

`block_topk` keeps the best of any rows a block; `scan` compares many with a limit that is known;
`segments` is where rows lie, and `row_kinds` what codes and floats differ in. It may import the
other `cuda.primitives` and `cuda.runtime`.
"""
