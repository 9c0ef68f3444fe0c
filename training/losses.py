"""The losses of the voice encoder and of the decoders, each with its formula and source.

Letters: B batch, D size of the embedding, V of the voice teacher's, P parameters of a voice, C
speakers of the training set (classes), S side of a face, L landmarks. `predicted` and `target` are
(B, D) centred embeddings where nothing else is said: the teacher's mean over the training faces is
already subtracted (DESIGN: a constant would otherwise look like a good answer).
"""

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional as F


def cosines(rows: Tensor, columns: Tensor) -> Tensor:
    """Cosine of every row with every column, (B, D) and (C, D) to (B, C)."""
    return F.normalize(rows, dim=-1) @ F.normalize(columns, dim=-1).T


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
    scores = cosines(predicted, target) / temperature  # (B, B)
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


def voice_parameters_loss(predicted: Tensor, stated: Tensor) -> Tensor:
    """Squared error of what a head hears of how the voice was made, mean over B and P.

    Args:
        predicted: (B, P), from an auxiliary head that does not ship.
        stated: (B, P), standardised within a gender, so that guessing the mean scores 1.

    Returns:
        Scalar, at least 0. Source: related tasks as an inductive bias, Caruana, "Multitask
        learning", Machine Learning 28, 1997.
    """
    return F.mse_loss(predicted, stated)


def feature_l1_loss(
    predicted: Tensor, target: Tensor, features: Callable[[Tensor], Tensor]
) -> Tensor:
    """L1 distance of what the decoder's first layer makes: mean over B of |f(p) - f(t)|_1.

    The norm is written in the paper, so the features (1,000 in the paper's decoder) are summed, not
    averaged: this loss is hundreds where others are near 1.

    Args:
        predicted: (B, D).
        target: (B, D).
        features: f_dec, (B, D) to (B, features), frozen: `NormalizedFaceDecoder.features`, which
            takes centred embeddings.

    Returns:
        Scalar, at least 0. Source: Oh et al., CVPR 2019, equation 1, first term.
    """
    return (features(predicted) - features(target)).abs().sum(-1).mean()


def classifier_distillation_loss(
    predicted_logits: Tensor, target_logits: Tensor, temperature: float = 2.0
) -> Tensor:
    """How a classifier of faces judges the prediction, against how it judges the face.

    Mean over the batch of -sum_i p_i(t) log p_i(p), where p(x) = softmax(x / temperature). At best
    it is the entropy of p(t), not 0.

    Args:
        predicted_logits: (B, C), of the prediction. A teacher without a classifier (the paper's
            f_VGG) has a stand-in: `cosines` to the speakers' prototypes, times a scale.
        target_logits: (B, C), of the true embedding.
        temperature: above 0; 2 in the paper.

    Returns:
        Scalar, at least 0. Source: Oh et al., CVPR 2019, equation 1, third term; Hinton et al.,
        arXiv 1503.02531.
    """
    wanted = (target_logits / temperature).softmax(-1)  # (B, C)
    return F.cross_entropy(predicted_logits / temperature, wanted)


def am_softmax_loss(
    speaker_cosines: Tensor, speakers: Tensor, scale: float = 30.0, margin: float = 0.35
) -> Tensor:
    """Additive-margin softmax: each prediction nears its own speaker, and by a margin no other.

    With c_j the cosine to class j, y the right one, s scale and m margin, mean over the batch of
    -log( e^(s (c_y - m)) / ( e^(s (c_y - m)) + sum over j != y of e^(s c_j) ) ).

    Args:
        speaker_cosines: (B, C), `cosines` of predictions and the classes' weights.
        speakers: (B,) integers from 0 to C - 1.
        scale: s, above 0; cosines end at 1, which as a logit is no certainty among many classes.
        margin: m, at least 0; 0 is the normalised softmax.

    Returns:
        Scalar, at least 0. Source: Wang et al., arXiv 1801.05599, section 3, s and m from its
        experiments; the same as CosFace, Wang et al., arXiv 1801.09414, equation 4.
    """
    own = F.one_hot(speakers, speaker_cosines.shape[-1])  # (B, C)
    return F.cross_entropy(scale * (speaker_cosines - margin * own), speakers)


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
