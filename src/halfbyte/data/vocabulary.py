"""The files that a vocabulary comes in: every family's published checkpoints have one of them at least."""

TIKTOKEN = "tiktoken.model"
SENTENCEPIECE = "tokenizer.model"
VOCABULARY_FILES = ("tokenizer.json", SENTENCEPIECE, "vocab.json", "merges.txt", TIKTOKEN)
