"""Kernels of the certificates: exact backups enclosed in floats. Lemma numbers refer to docs/certify.md.

Sums over successors may be taken in any order (Lemma 1 holds for all of them); everything that assembles an error bound
is strict and rounded outwards. U is the unit roundoff, TINY the smallest positive float.
"""

import numpy as np
from numba.extending import overload

from theoryrl._jit import kernel
from theoryrl.mdp._kernels_rows import means
from theoryrl.mdp._kernels_sparse import Sparse

U = 2.0**-53
TINY = 2.0**-1074
INFLATE = 1.0 + 2.0**-40  # more than the roundings of an error bound can take away from it
INF = np.inf


@kernel("any-order")
def _sums_dense(rows, layer, value, products, sums, counts):
    table = rows.table
    for row in range(products.shape[0]):
        total, weight, count = 0.0, 0.0, 0.0
        for t in range(value.shape[0]):
            p = table[layer, row, t]
            total += p * value[t]
            weight += p
            count += 1.0 if p != 0.0 else 0.0
        products[row], sums[row], counts[row] = total, weight, count


@kernel("any-order")
def _sums_sparse(rows, layer, value, products, sums, counts):
    first = layer * rows.n_rows
    for row in range(products.shape[0]):
        begin, end = rows.indptr[first + row], rows.indptr[first + row + 1]
        total, weight = 0.0, 0.0
        for i in range(begin, end):
            total += rows.data[i] * value[rows.indices[i]]
            weight += rows.data[i]
        products[row], sums[row], counts[row] = total, weight, end - begin


def means_and_sums(rows, layer, value, products, sums, counts):
    """products[row] = sum_t P[row, t] value[t], with the sum and the number of nonzeros of every row, in one pass."""
    (_sums_sparse if isinstance(rows, Sparse) else _sums_dense)(rows, layer, value, products, sums, counts)


@overload(means_and_sums)
def _means_and_sums(rows, layer, value, products, sums, counts):
    chosen = _sums_sparse if rows.instance_class is Sparse else _sums_dense
    return lambda rows, layer, value, products, sums, counts: chosen(rows, layer, value, products, sums, counts)


@kernel("strict")
def mean_error(total, count):
    """Lemma 1: |fl(sum w v) - (sum w v) / (sum w)| <= mean_error * max|v| + count TINY, `total` being fl(sum w)."""
    gamma = count * U / (1.0 - count * U)
    before = (count - 1.0) * U / (1.0 - (count - 1.0) * U)
    defect = abs(total - 1.0) + before / (1.0 - before) * total
    return (gamma * (1.0 + defect) + defect) * INFLATE


@kernel("strict")
def backups(products, sums, counts, reward, reward_error, discount, size, q, error):
    """Lemma 2: |q - exact backup| <= error, with q = fl(reward + discount * products) and size = max|value|.

    `sums` holds the `mean_error` of every row.
    """
    n_states, n_actions = q.shape
    for s in range(n_states):
        for a in range(n_actions):
            row = s * n_actions + a
            product = discount * products[row]
            x = reward[s, a] + product
            bound = discount * (size * sums[row]) + U * abs(product) + U * abs(x) + reward_error[s, a]
            q[s, a] = x
            error[s, a] = (bound + (counts[row] + 8.0) * TINY) * INFLATE


@kernel("strict")
def above(gap, error):
    """A float not below gap + error, up to one rounding that `np.nextafter` on the final maximum makes good."""
    bound = gap + (error + U * abs(gap)) * INFLATE
    return bound if bound < INF else INF


@kernel("strict")
def optimal_residual(q, error, mask, value):
    """Upper bound on max over s and allowed a of (backup of (s, a)) - value[s]."""
    worst = -INF
    for s in range(q.shape[0]):
        for a in range(q.shape[1]):
            if mask[s, a]:
                worst = max(worst, above(q[s, a] - value[s], error[s, a]))
    return np.nextafter(worst, INF)


@kernel("strict")
def policy_residuals(q, error, actions, choice, value):
    """Upper bounds on max_s (T_pi v_next - value)(s) and max_s (value - T_pi v_next)(s).

    The policy is `actions` (S,), or the probabilities `choice` (S, A) if that is not empty (Lemma 3).
    """
    up, down = -INF, -INF
    for s in range(q.shape[0]):
        if choice.shape[0] == 0:
            x, e = q[s, actions[s]], error[s, actions[s]]
        else:
            x, e, total, size, count = 0.0, 0.0, 0.0, 0.0, 0.0
            for a in range(q.shape[1]):
                if choice[s, a] > 0.0:
                    x += choice[s, a] * q[s, a]
                    total += choice[s, a]
                    e = max(e, error[s, a])
                    size = max(size, abs(q[s, a]))
                    count += 1.0
            e = (e + size * mean_error(total, count) + (count + 8.0) * TINY) * INFLATE
        gap = x - value[s]
        up = max(up, above(gap, e))
        down = max(down, above(-gap, e))
    return np.nextafter(up, INF), np.nextafter(down, INF)


@kernel("strict")
def largest(value):
    """max|value|."""
    size = 0.0
    for s in range(value.shape[0]):
        size = max(size, abs(value[s]))
    return size


@kernel("strict")
def residuals(rows, staged, reward, reward_error, value, mask, actions, choice, discount, optimal, up, down):
    """Of every stage h: up[h] >= (backup of value[h+1]) - value[h] in every state, down[h] >= the opposite difference.

    `down` is for the policy, `up` for all allowed actions if `optimal`, else for the policy too. An axis of layers of
    length 1 stands for every layer.
    """
    n_states, n_actions = mask.shape
    products, sums, counts = np.empty(mask.size), np.empty(mask.size), np.empty(mask.size)
    q, error = np.empty((n_states, n_actions)), np.empty((n_states, n_actions))
    horizon = up.shape[0]
    for h in range(horizon - 1, -1, -1):
        if staged or h == horizon - 1:
            means_and_sums(rows, h if staged else 0, value[h + 1], products, sums, counts)
            for row in range(mask.size):
                sums[row] = mean_error(sums[row], counts[row])
        else:
            means(rows, 0, value[h + 1], products)
        r, e = reward[h % reward.shape[0]], reward_error[h % reward_error.shape[0]]
        backups(products, sums, counts, r, e, discount, largest(value[h + 1]), q, error)
        chosen, weights = actions[h % actions.shape[0]], choice[h % choice.shape[0]]
        up[h], down[h] = policy_residuals(q, error, chosen, weights, value[h])
        if optimal:
            up[h] = optimal_residual(q, error, mask, value[h])
