"""Texts to calibrate and compare with: files, data set names and shipped mixes in, sequences of token ids out."""
