"""`halfbyte doctor`: what is installed, what this machine has, and what is missing for what. Needs the core only."""
