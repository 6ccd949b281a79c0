"""llama-server's own routes: tokens, templates, ranks, from whichever upstream has the model.

Imports the gateway's packages below, and of server/http what one request and its answer are, and
how `openai` reads a body.
"""
