"""Convolution, pooling and dense layers, written once against the array API standard.

The same call runs on NumPy, CuPy, PyTorch, JAX and Dask arrays, and on any other library that conforms.
"""

from xconv._activations import (
    elu,
    gelu,
    hard_sigmoid,
    hard_swish,
    leaky_relu,
    log_softmax,
    mish,
    prelu,
    relu,
    relu6,
    selu,
    sigmoid,
    silu,
    softmax,
    softplus,
    tanh,
)
from xconv._adaptive import (
    adaptive_avg_pool,
    adaptive_max_pool,
    global_avg_pool,
    global_lp_pool,
    global_max_pool,
)
from xconv._bound import plan
from xconv._config import config
from xconv._conv import conv, conv1d, conv2d, conv3d, conv_general, depthwise_conv
from xconv._dense import bilinear, dense
from xconv._explain import explain
from xconv._filter import convolve, correlate
from xconv._grad import vjp
from xconv._norm import batch_norm, fold_batch_norm
from xconv._order import maximum_filter, median_filter, minimum_filter, percentile_filter, rank_filter
from xconv._pad import pad
from xconv._patches import fold, unfold
from xconv._pool import (
    avg_pool,
    avg_pool1d,
    avg_pool2d,
    avg_pool3d,
    lp_pool,
    max_pool,
    max_pool1d,
    max_pool2d,
    max_pool3d,
)
from xconv._separable import separable_conv
from xconv._show import show_config
from xconv._smooth import gaussian_filter, gaussian_laplace, laplace, sobel, uniform_filter
from xconv._transposed import conv_transpose, conv_transpose1d, conv_transpose2d, conv_transpose3d
from xconv._tune import tune
from xconv._unpool import max_unpool
from xconv._windows import reduce_window

__version__ = "0.1.0"

__all__ = [
    "__version__",
    "adaptive_avg_pool",
    "adaptive_max_pool",
    "avg_pool",
    "avg_pool1d",
    "avg_pool2d",
    "avg_pool3d",
    "batch_norm",
    "bilinear",
    "config",
    "conv",
    "conv1d",
    "conv2d",
    "conv3d",
    "conv_general",
    "conv_transpose",
    "conv_transpose1d",
    "conv_transpose2d",
    "conv_transpose3d",
    "convolve",
    "correlate",
    "dense",
    "depthwise_conv",
    "elu",
    "explain",
    "fold",
    "fold_batch_norm",
    "gaussian_filter",
    "gaussian_laplace",
    "gelu",
    "global_avg_pool",
    "global_lp_pool",
    "global_max_pool",
    "hard_sigmoid",
    "hard_swish",
    "laplace",
    "leaky_relu",
    "log_softmax",
    "lp_pool",
    "max_pool",
    "max_pool1d",
    "max_pool2d",
    "max_pool3d",
    "max_unpool",
    "maximum_filter",
    "median_filter",
    "minimum_filter",
    "mish",
    "pad",
    "percentile_filter",
    "plan",
    "prelu",
    "rank_filter",
    "reduce_window",
    "relu",
    "relu6",
    "selu",
    "separable_conv",
    "show_config",
    "sigmoid",
    "silu",
    "sobel",
    "softmax",
    "softplus",
    "tanh",
    "tune",
    "unfold",
    "uniform_filter",
    "vjp",
]
