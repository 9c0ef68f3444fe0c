"""The losses of the voice encoder and of the decoders, each with its formula and source.

Letters: B batch, D size of the embedding, S side of a face, L landmarks. `predicted` and `target`
are (B, D) centred embeddings where nothing else is said: the teacher's mean over the training faces
is already subtracted (DESIGN: a constant would otherwise look like a good answer).
"""

import torch
from torch import Tensor
from torch.nn import functional as F


def cosine_loss(predicted: Tensor, target: Tensor, weights: Tensor | None = None) -> Tensor:
    """One minus the cosine: mean over the batch of w (1 - <p, t> / (|p| |t|)), between 0 and 2.

    Args:
        predicted: (B, D).
        target: (B, D).
        weights: (B,), 0 to 1; all 1 if None.

    Returns:
        Scalar. Source: the feature similarity of Oh et al., CVPR 2019, section 4.2, as a loss.
    """
    losses = 1 - F.cosine_similarity(predicted, target, dim=-1)  # (B,)
    return (losses if weights is None else weights * losses).mean()


def normalised_l2_loss(predicted: Tensor, target: Tensor) -> Tensor:
    """Squared distance of unit vectors: mean over the batch of | p/|p| - t/|t| |^2, from 0 to 4.

    Args:
        predicted: (B, D).
        target: (B, D).

    Returns:
        Scalar. Source: Oh et al., CVPR 2019, equation 1, second term.
    """
    difference = F.normalize(predicted, dim=-1) - F.normalize(target, dim=-1)  # (B, D)
    return difference.square().sum(-1).mean()


def mse_loss(predicted: Tensor, target: Tensor, population_variance: float) -> Tensor:
    """Squared error relative to the faces' spread: mean over the batch of |p - t|^2 / variance.

    The mean (a zero vector) scores 1, and the conditional mean is the only optimum, so that a
    residual can be drawn around it.

    Args:
        predicted: (B, D).
        target: (B, D).
        population_variance: mean squared norm of the training faces' centred embeddings.

    Returns:
        Scalar, at least 0.
    """
    return (predicted - target).square().sum(-1).mean() / population_variance


def info_nce_loss(
    predicted: Tensor, target: Tensor, speakers: Tensor, temperature: float = 0.1
) -> Tensor:
    """Symmetric InfoNCE: each voice finds its face in the batch, each face its voice.

    With s_ij = cos(p_i, t_j) / temperature: the mean over i of -log softmax_j(s_ij) at j = i, and
    the same over columns, averaged. Another pair of the same speaker is no negative: it stays out.

    Args:
        predicted: (B, D).
        target: (B, D).
        speakers: (B,) integers, equal for pairs of one speaker.
        temperature: above 0; small ones look at the hardest negatives.

    Returns:
        Scalar. Source: van den Oord et al., arXiv 1807.03748, equation 4; symmetric as in Radford
        et al., arXiv 2103.00020, figure 3.
    """
    scores = F.normalize(predicted, dim=-1) @ F.normalize(target, dim=-1).T / temperature  # (B, B)
    others = ~torch.eye(len(speakers), dtype=torch.bool, device=speakers.device)
    same_speaker = (speakers[:, None] == speakers[None, :]) & others
    scores = scores.masked_fill(same_speaker, float("-inf"))
    own = torch.arange(len(speakers), device=speakers.device)
    return (F.cross_entropy(scores, own) + F.cross_entropy(scores.T, own)) / 2


def distillation_loss(predicted_voice: Tensor, teacher_voice: Tensor) -> Tensor:
    """One minus the cosine between voice embedding and voice teacher's, mean over the batch.

    Args:
        predicted_voice: (B, V), from an auxiliary head that does not ship.
        teacher_voice: (B, V), of the clean recording, centred by its mean over the training set.

    Returns:
        Scalar, between 0 and 2. Source: Reimers and Gurevych, arXiv 2004.09813, the student copies
        the teacher's vector; cosine because GE2E's space is a sphere (Wan et al., 1710.10467).
    """
    return cosine_loss(predicted_voice, teacher_voice)


def texture_loss(predicted: Tensor, target: Tensor, known: Tensor) -> Tensor:
    """Mean absolute difference of textures in the mean shape, mean over known pixels of |p - t|.

    Args:
        predicted: (B, 3, S, S) from 0 to 1.
        target: (B, 3, S, S), the face's, warped to the mean shape.
        known: (B, 1, S, S), 1 where the face's picture reaches, else 0.

    Returns:
        Scalar, between 0 and 1. Source: Cole et al., CVPR 2017, section 4.2.
    """
    weights = known.expand_as(target)
    return (weights * (predicted - target).abs()).sum() / weights.sum().clamp(min=1)


def landmark_loss(predicted: Tensor, target: Tensor, population_variance: float) -> Tensor:
    """Squared distance of landmarks, mean over batch and landmarks of |p - t|^2 / variance.

    Args:
        predicted: (B, L, 2) pixels.
        target: (B, L, 2) pixels.
        population_variance: pixels^2, the same mean for the mean landmarks, which then score 1.

    Returns:
        Scalar, at least 0. Source: Cole et al., CVPR 2017, section 4.2.
    """
    return (predicted - target).square().sum(-1).mean() / population_variance
