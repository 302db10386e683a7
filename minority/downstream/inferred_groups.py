"""Groups without attribute labels: environment inference for invariant learning (EIIL; Creager et al. 2021).

Given a model that leans on a shortcut, the images are divided into two environments in which one and the same scale of
its logits would be worst: with assignments q_i(e) in [0, 1] and losses l_i(w) of the logits times w,

    max over q of   mean over environments e of   | d/dw  1/N sum_i q_i(e) l_i(w)  at w = 1 |^2

which is the penalty of IRMv1 (Arjovsky et al. 2019). The paper climbs it by gradient steps. The objective is convex in
q, so its maximum lies in a corner, and with two environments in the one that parts the images by the sign of their
slope

    d/dw l_i(w)  =  l_i - H(p_i)   at w = 1

as any other division lets slopes of unlike sign cancel. So the second environment holds the images whose loss is larger
than the entropy H of what the model says: the model is wronger than it thinks. Groups are combinations of class and
environment.

Shapes: N images, K classes.
"""

import numpy as np

from minority.downstream.data import Float64, Int64

ENVIRONMENTS = 2


def infer_environments(probabilities: Float64, labels: Int64) -> Int64:
    """Divide images into two environments by what a biased model says of them.

    Args:
        probabilities: (N, K) of the biased model; rows sum to 1.
        labels: (N,) classes.

    Returns:
        (N,) 1 where the biased model is wronger than it thinks, else 0.
    """
    logs = np.log(np.maximum(probabilities, np.finfo(np.float64).tiny))
    entropy = -(probabilities * logs).sum(axis=1)
    slopes = -logs[np.arange(len(labels)), labels] - entropy
    return np.asarray(slopes > 0).astype(np.int64)


def groups_of(labels: Int64, environments: Int64) -> Int64:
    """(N,) groups in [0, 2 K): combinations of class and environment."""
    return labels * ENVIRONMENTS + environments
