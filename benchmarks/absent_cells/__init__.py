"""Combinations without real images: do composed samples of them help a classifier, and does the gate know where?

The rule, written down before the runs: "synthetic, kept" pays at a k where the 95 % interval over at least 5 draws of
its accuracy in the absent cells, less that of the recipe on real images that validation chose in each draw, lies above
0; it does not where the interval lies below one point; else it is not decided.

The rule of the gate, changed after the draws 0 to 9 (k = 0) and 0 to 4 (k = 1, 5) of fashion-mark and written down
before the draws from 10 on: it refuses a cell where less than half of the samples show the label, and a cell without
any real image also where less than half show the attribute. It tells where drawing helps if, over the cells of k = 0, 1
and 5 of at least 5 draws that it was not made from, the 95 % interval over draws of the gain of "synthetic" over
"balanced" lies above 0 in the cells let through, and the mean gain in those refused does not.
"""
