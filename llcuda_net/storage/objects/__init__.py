"""What clients keep here that is no result: files, batches and conversations, in objects.db.

One module per kind of object holds its statements: plain functions of a connection, which
`database.Objects` runs in its thread. It may import `errors` and the rest of `storage`.
"""
