"""Linear regression in closed form, in float64; it knows torch alone.

`linear` has solutions, the null space and whole epochs, `noise` the covariance of W under
minibatches, `stability` the learning rates that converge.
"""

from janus_pl.theory.linear import (
    Convention,
    Number,
    TrainMSE,
    data_projector,
    decay_factor,
    decay_per_epoch,
    eigenvalue_moduli,
    epoch_map,
    fixed_point,
    log_slope_ratio,
    null_component,
    null_projector,
    regularized_solution,
    singular_values,
    train_mse,
)
from janus_pl.theory.noise import (
    Moments,
    gaussian_moments,
    gaussian_noise,
    sample_moments,
    sample_noise,
    stationary_covariance,
)
from janus_pl.theory.stability import (
    ROUNDING,
    SCAN_FACTOR,
    condition_number,
    cyclic_limit,
    gradient_descent_limit,
    mean_square_limit,
    paper_learning_rate,
    stability_limit,
)

__all__ = [
    "ROUNDING",
    "SCAN_FACTOR",
    "Convention",
    "Moments",
    "Number",
    "TrainMSE",
    "condition_number",
    "cyclic_limit",
    "data_projector",
    "decay_factor",
    "decay_per_epoch",
    "eigenvalue_moduli",
    "epoch_map",
    "fixed_point",
    "gaussian_moments",
    "gaussian_noise",
    "gradient_descent_limit",
    "log_slope_ratio",
    "mean_square_limit",
    "null_component",
    "null_projector",
    "paper_learning_rate",
    "regularized_solution",
    "sample_moments",
    "sample_noise",
    "singular_values",
    "stability_limit",
    "stationary_covariance",
    "train_mse",
]
