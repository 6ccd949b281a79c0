"""`llcuda chat`: a conversation on a terminal; the server keeps it, as those of the page."""
