"""A server that computes nothing, in a process of its own: what a load client costs itself.

It speaks every protocol that a target has, on one port: llcuda's, llama-server's `/completion` and
OpenAI's `/v1/chat/completions`.

server  the process: sockets, and whose answer is next
llcuda  the answers by llcuda's protocol
http    the answers by HTTP

It imports llcuda_protocol, and of llcuda_net only `util`.
"""
