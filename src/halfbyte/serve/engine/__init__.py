"""Engines that the door runs itself, each in a process of its own: what ends one does not end the door."""
