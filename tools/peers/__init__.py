"""llcuda bench beside other measuring tools, all on servers of known truth.

cases      the servers: a law of the service time, slots, a rate, a duration
adapters   each tool: how it is installed, its command line, how what it wrote is read
install    environments of their own for the others
tokenizer  a tokenizer of bytes, so that nothing is fetched
figures    what a tool said, what was true, and what the server itself recorded
runs       one tool on one server, as processes
report     the tables
"""
