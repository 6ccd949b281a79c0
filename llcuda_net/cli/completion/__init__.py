"""`llcuda completion`, and how a shell is told what fits. `completer` imports nothing of ours."""
