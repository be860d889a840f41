"""Reports: compare results.json files, with uncertainty, in Markdown, plots and a table.

results files -> runs -> comparisons (comparable runs) -> effects (differences, tests) -> tables and plots.
"""
