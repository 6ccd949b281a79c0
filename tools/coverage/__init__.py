"""How often the intervals of llcuda bench hold the truth, on processes of which it is known."""
