"""What a candidate lost against its baseline, token by token, both streamed from disk in one pass (extra `[torch]`)."""
