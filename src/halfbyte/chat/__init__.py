"""Answering from a checkpoint on this machine: one small interface, two engines behind it."""
