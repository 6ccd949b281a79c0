"""What the documentation tells people to type: found, and made fit to be run."""
