"""OpenAI's API: chats, models and embeddings; bodies in, answers and chunks out.

Imports the gateway's packages below, and of server/http what one request and its answer are.
"""
