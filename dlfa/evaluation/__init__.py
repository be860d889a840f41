"""Evaluation: scores and predictions per language, of one model or an ensemble.

saved_runs -> evaluation_data -> evaluate -> results.json, prediction files, tables and charts.
"""
