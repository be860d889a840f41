"""Training: from a configuration to a run directory with model, scores and predictions.

configuration -> shared_inputs (examples, tokenizer, features, kept states) -> train, by `trainer` -> run directory.
"""
