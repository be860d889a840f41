"""Evaluation: scores and predictions of a model, or of several together, by language.

saved_runs -> evaluation_data -> evaluate -> results.json, prediction files, tables and charts.
"""
