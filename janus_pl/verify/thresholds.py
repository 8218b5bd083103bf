"""The thresholds of the verdicts.

The paper says "grows" and "small"; the numbers are ours, and each is part of a criterion.
"""

TREND = 0.5  # Kendall's tau; three quarters of all pairs of lambdas are in order
RANK_FALLS = 0.20  # a share of the effective rank at the start
STAYS = 0.02  # a smaller change counts as none
NOISE_FACTOR = 10.0
SAME_FACTOR = 1.5
EQUILIBRIUM = 0.01
SAME_CLOCK = 0.05  # steps, or eta t, are equal up to this relative difference
