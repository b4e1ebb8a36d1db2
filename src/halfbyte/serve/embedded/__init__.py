"""llama.cpp in a child process of its own: what ends it does not end the door."""
