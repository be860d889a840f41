"""Runs on disk: their configuration, their output directory, and the checks before writing there.

run_config -> run_directory (model, results, predictions, checkpoints), guarded by `output_paths` and `directory_lock`.
"""
