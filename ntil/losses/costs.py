"""Token costs: the cost of a distribution over digits at one position, given the true digit.

Every function takes the logits of the digits in order of value, [N, base], and the true digits, [N], and returns [N];
rows whose digit is -1 give a meaningless finite value. p is the softmax over the digits alone, r = p - onehot(y).
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from ntil.numbers.spans import NumberSpans


def expected_distance(digit_logits: Tensor, digit: Tensor) -> Tensor:
    """Earth Mover's (Wasserstein-1) distance to a one-hot target, sum_k p_k |k - y|, in digits (arXiv 2505.13077)."""
    return (torch.softmax(digit_logits, -1) * _offsets(digit_logits, digit).abs()).sum(-1)


def squashed_distance(digit_logits: Tensor, digit: Tensor, squash: float) -> Tensor:
    """Mean over p of 1 + (|k - y| - 1) (squash - 1) / (base - 2) for wrong digits, 0 for the right one (`ntloss`)."""
    distance = _offsets(digit_logits, digit).abs()
    slope = (squash - 1) / (digit_logits.shape[-1] - 2)
    return (torch.softmax(digit_logits, -1) * torch.where(distance == 0, 0.0, 1 + (distance - 1) * slope)).sum(-1)


def squared_error(digit_logits: Tensor, digit: Tensor) -> Tensor:
    """Squared error of the mean digit, (y - sum_k p_k k)^2: NTL-MSE (arXiv 2411.02083). Independent of p's spread."""
    return (torch.softmax(digit_logits, -1) * _offsets(digit_logits, digit)).sum(-1).square()


def kernel_quadratic(digit_logits: Tensor, digit: Tensor, matrix: Tensor) -> Tensor:
    """Squared maximum mean discrepancy r' M r under the kernel M (arXiv 2606.27731)."""
    residual = torch.softmax(digit_logits, -1) - _one_hot(digit_logits, digit)
    return ((residual @ matrix.to(residual)) * residual).sum(-1)


def smmd_matrix(base: int, bandwidth: float) -> Tensor:
    """Kernel K + a (D - K), [base, base]: K Gaussian, D its row sums on the diagonal, a = 1 / (2 * mean row sum)."""
    values = torch.arange(base, dtype=torch.float64)
    kernel = torch.exp(-(values[:, None] - values).square() / (2 * bandwidth**2))
    rows = kernel.sum(1)
    return (kernel + (torch.diag(rows) - kernel) / (2 * rows.mean())).float()


def largest_quadratic(matrix: Tensor) -> Tensor:
    """The largest r' M r, all of p on one wrong digit; M is positive semidefinite, so that no mixture costs more."""
    diagonal = matrix.diagonal()
    return (diagonal[:, None] + diagonal - 2 * matrix).max()


def place_weight(spans: NumberSpans, sigma: float) -> Tensor:
    """NTIL's weight of a digit by its place, (1 + sigma)^(n - i - 1), [N] float32; of at most 1e30.

    The exponent is at most 100 (1.2 ** 100 is 8e7), so that the mean over a long run of digits is finite in float32.
    """
    exponent = (spans.length - spans.place - 1).clamp(0, 100)
    return torch.pow(1.0 + sigma, exponent.double()).clamp(max=1e30).float()


def alphabet_scale(base: int, scaled: bool) -> float:
    """How many steps a width of 1 is: 1, or a tenth of the alphabet, which is the same for ten digits."""
    return base / 10 if scaled else 1.0


def soft_target_divergence(digit_logits: Tensor, digit: Tensor, width: float) -> Tensor:
    """Divergence KL(q, p) with q_k proportional to exp(-(k - y)^2 / width) (DIST2, arXiv 2503.02379)."""
    log_q = torch.log_softmax(-_offsets(digit_logits, digit).square() / width, -1)
    return (log_q.exp() * (log_q - torch.log_softmax(digit_logits, -1))).sum(-1)


def soft_label_gap(digit_logits: Tensor, digit: Tensor, eta: float, shape: str, width: float) -> Tensor:
    """Change of cross-entropy when the label is softened: sum_k (onehot_k - t_k) z_k.

    t = (1 - eta) onehot + eta psi, psi the normalised bump around y, `gaussian` exp(-(k-y)^2 / (2 width^2)) or
    `triangular` max(0, 1 - |k-y| / width). Since both labels sum to one, log-sum-exp cancels: the digit logits z alone
    give the change of cross-entropy over the whole vocabulary.
    """
    offsets = _offsets(digit_logits, digit)
    if shape == "gaussian":
        bump = torch.exp(-offsets.square() / (2 * width**2))
    else:
        bump = (1 - offsets.abs() / width).clamp(min=0)
    psi = bump / bump.sum(-1, keepdim=True).clamp(min=1e-30)
    return eta * ((_one_hot(digit_logits, digit) - psi) * digit_logits).sum(-1)


def digit_entropy(digit_logits: Tensor, digit: Tensor) -> Tensor:
    """Digit entropy mean_k BCEWithLogits(z_k, onehot_k) * p_k (DEL, arXiv 2605.20369)."""
    target = _one_hot(digit_logits, digit)
    binary = F.binary_cross_entropy_with_logits(digit_logits, target, reduction="none")
    return (binary * torch.softmax(digit_logits, -1)).mean(-1)


def _offsets(digit_logits: Tensor, digit: Tensor) -> Tensor:
    """Differences k - y, [N, base]."""
    values = torch.arange(digit_logits.shape[-1], device=digit_logits.device, dtype=digit_logits.dtype)
    return values - digit[:, None].to(digit_logits.dtype)


def _one_hot(digit_logits: Tensor, digit: Tensor) -> Tensor:
    return (_offsets(digit_logits, digit) == 0).to(digit_logits.dtype)
