"""Runs as they lie on disk: their configuration, their output directory, and who may write there.

run_config -> run_directory (model, results, predictions, checkpoints), guarded by `output_paths` and `directory_lock`.
"""
