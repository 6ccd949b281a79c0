"""Where questions come from: a line editor on a terminal, plain lines from elsewhere."""
