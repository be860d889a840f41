"""Reports: results.json files in, comparisons with their uncertainty out, as Markdown, plots and a table.

results files -> runs -> comparisons (what may stand in one table) -> effects (differences, tests) -> tables and plots.
"""
