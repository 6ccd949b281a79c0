"""What a chat has beyond plain text: parts of messages and tools go in, channels come out."""
