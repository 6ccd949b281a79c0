"""`llcuda top`: the state of a server, live on a terminal, or once as text.

It imports `llcuda_net.sync` and the modules beside this package; only `app` imports textual.
"""
