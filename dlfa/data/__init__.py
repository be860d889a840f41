"""Examples of each kind of task and the files they are read from; words cut into sub-words, and padded batches."""
