"""Answers that other evaluation harnesses left, read into arms: one module for each harness."""
