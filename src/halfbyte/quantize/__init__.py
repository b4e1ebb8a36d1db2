"""Quantizing a checkpoint: recipe, job, the streaming pipeline, resume journal, evidence, verification."""
