"""Combinations without real images: do composed samples of them help a classifier, and does the gate know where?

The rule, written down before the runs: "synthetic, kept" pays at a k where the 95 % interval over at least 5 draws of
its accuracy in the absent cells, less that of the recipe on real images that validation chose in each draw, lies above
0; it does not where the interval lies below one point; else it is not decided.
"""
