"""The label that nothing is learnt from."""

IGNORED = -100  # torch's ignore_index
