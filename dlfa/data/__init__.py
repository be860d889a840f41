"""Examples of each kind of task, their file formats, sub-word alignment, and padded batches."""
