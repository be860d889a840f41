"""Analysis of the information in a model's layers and of how its fusion uses them.

saved run or encoder -> analyzed_model -> states of every layer by language -> probes, gate statistics, contributions
-> tables and plots.
"""
