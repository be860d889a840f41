"""The commands of `dlfa`, one file each. They import heavy modules when called, so that help is fast.

They raise their errors; `dlfa.cli` ends each of them by `dlfa.terminal.one_line_errors`.
"""
