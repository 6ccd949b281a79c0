"""`llcuda top`: the state of a server, live on a terminal."""
