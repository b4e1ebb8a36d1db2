"""What is known about model families: one file each."""
