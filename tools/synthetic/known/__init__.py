"""Servers of known truth: how long answers take is drawn from laws whose figures are known.

service    the laws of the service time, drawn from a seed
stalls     a clock that stands still for so long every so often
laws       distributions: mean, distribution function, quantiles
queueing   the response time of M/M/c, by formula
truth      what a client must find: figures of a law at a rate
server     the synthetic upstream, with these times
"""
