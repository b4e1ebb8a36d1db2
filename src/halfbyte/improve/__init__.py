"""`quantize --improve`: experts of a finished checkpoint replaced by ones rounded on data, shard by shard."""
