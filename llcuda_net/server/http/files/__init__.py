"""Files over HTTP, as OpenAI's API has them: upload, list, content, delete.

They are kept by `storage.objects.files`. It may import what is below `server/http`, and the modules
of `server/http` itself.
"""
