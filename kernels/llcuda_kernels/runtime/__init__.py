"""What operations share: where data lies, which path they take, and the GPU's memory and streams.

It may import `errors`, `arrays` and `cuda.runtime`, and no operation.
"""
