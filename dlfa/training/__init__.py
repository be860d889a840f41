"""Training: a configuration in, a run directory with model, scores and predictions out.

configuration -> shared_inputs (examples, tokenizer, features, kept states) -> train, by `trainer` -> run directory.
"""
