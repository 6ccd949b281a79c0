"""`llcuda store`: what is to be done with a store as a whole."""
