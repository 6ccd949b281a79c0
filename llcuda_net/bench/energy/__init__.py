"""What a measurement takes: joules by device, beside the run; and what is known of each GPU.

meters   the interface: a device that tells its joules
nvml     NVIDIA GPUs
rapl     processors and their memory (Linux)
sampler  reads them beside a run; joules of any window of it
economy  joules, watts and cost by token and by request
money    what a price is
account  what a measurement asks of all this, and the account of its runs

It imports `batch` and `statistics`, and nothing of its other siblings.
"""
