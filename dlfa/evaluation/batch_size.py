"""Sequences a batch where nothing is trained: one number for all, as states depend in their last bits on the batch."""

EVAL_BATCH_SIZE = 64
