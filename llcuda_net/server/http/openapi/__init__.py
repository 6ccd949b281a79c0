"""OpenAPI 3.1 of all that is answered over HTTP: /openapi.json.

Imports all of server/http but its routes, which import it.
"""
