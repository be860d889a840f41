"""What the layers of a model hold and what its fusion makes of them.

a saved run or an encoder -> analyzed_model -> states of every layer by language -> probes, gate statistics,
contributions -> tables and plots.
"""
