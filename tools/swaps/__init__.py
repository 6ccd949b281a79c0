"""Local models that are swapped, in virtual time: a world, its users, and what an oracle needs."""
