"""A cluster in one process, under virtual time: the product's own threads, and a modelled database.

What decides who may write what is the product's code, unchanged: membership, mirror, recovery.
Its threads run as greenlets, one at a time, in an order that follows from the seed; its sessions
talk to a model of the database's statements, through a network that delays, loses and repeats.
"""
