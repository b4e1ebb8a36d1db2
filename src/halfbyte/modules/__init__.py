"""Modules of transformers' models: the sparse attention that replaces theirs, the fused experts that we know.

Importing these changes nothing in transformers; `halfbyte.runtime` alone registers something.
"""
