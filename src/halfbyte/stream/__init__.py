"""Runs a model layer by layer from disk, without ever holding it: see `executor.Streamed`. Needs `[torch]`."""
