"""The label that the loss ignores."""

IGNORED = -100  # torch's ignore_index
