"""A collection too large to try: what embedding it, keeping it and searching it takes, counted and simulated.

`inputs` keeps apart what is chosen, what was measured and what is assumed; everything else follows from these three.
"""
