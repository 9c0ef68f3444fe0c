"""What a training is told: dataclass defaults, and YAML files that say what differs from them."""

import dataclasses
import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from training.voice_teacher import VoiceTeacher

TRAINING_FILE = "training.json"
PAIRS_OF_NUMBERS = ("reverberation_s", "snr_db", "guidance_scales")  # lists in YAML


@dataclass
class Augmentation:
    """How clean speech is made to sound as a phone might record it; see `training.augmentation`.

    Attributes:
        speed: largest relative change of speed, and with it of pitch and formants.
        gain_db: largest change of level, up or down, dB.
        equaliser_db: standard deviation of a random smooth frequency response, dB.
        reverberation: share of clips with a room.
        reverberation_s: shortest and longest time in which the room decays by 60 dB, seconds.
        noise: share of clips with noise.
        babble: share of the noisy clips whose noise is other people's speech.
        snr_db: lowest and highest signal-to-noise ratio, dB.
        band_limit: share of clips with a low and a high cut-off.
        telephone: share of the band-limited clips that keep 300 to 3400 Hz only.
        clipping: share of clips that are overdriven.
        mu_law: share of clips quantised to 8 bits as on a telephone line.
    """

    speed: float = 0.03
    gain_db: float = 10.0
    equaliser_db: float = 4.0
    reverberation: float = 0.4
    reverberation_s: tuple[float, float] = (0.1, 0.7)
    noise: float = 0.6
    babble: float = 0.3
    snr_db: tuple[float, float] = (3.0, 30.0)
    band_limit: float = 0.4
    telephone: float = 0.3
    clipping: float = 0.1
    mu_law: float = 0.1


@dataclass
class VoiceEncoderLosses:
    """Weights of the voice encoder's losses; see `training.losses` for each.

    Attributes:
        mse: squared error, relative to the faces' variance.
        cosine: one minus the cosine between centred embeddings.
        normalised_l2: squared distance between unit vectors.
        info_nce: symmetric InfoNCE within the batch.
        distillation: one minus the cosine to the voice teacher's embedding.
        voice_parameters: squared error of what the data set states of the voice.
        feature_l1: difference of what `feature_decoder`'s first layer makes of the embeddings,
            summed over its features.
        classifier_distillation: cross-entropy between the classifications of true and predicted
            embedding by the training speakers' prototypes.
        am_softmax: additive-margin softmax over the training speakers.
        temperature: of InfoNCE.
        classifier_temperature: T of the classifier's distillation.
        classifier_scale: by what cosines to the prototypes are multiplied to stand in for logits.
        am_softmax_scale: s of AM-softmax.
        am_softmax_margin: its m, of a cosine.
    """

    mse: float = 1.0
    cosine: float = 1.0
    normalised_l2: float = 0.0
    info_nce: float = 0.1
    distillation: float = 0.0
    voice_parameters: float = 0.0
    feature_l1: float = 0.0
    classifier_distillation: float = 0.0
    am_softmax: float = 0.0
    temperature: float = 0.1
    classifier_temperature: float = 2.0
    classifier_scale: float = 30.0
    am_softmax_scale: float = 30.0
    am_softmax_margin: float = 0.35

    def __post_init__(self):
        values = dataclasses.asdict(self)
        for name, value in values.items():
            if name.endswith(("temperature", "scale")) and value <= 0:
                raise ValueError(f"losses.{name} must be above 0, got {value}")
            if value < 0:
                raise ValueError(f"losses.{name} must be at least 0, got {value}")
        if not any(values[name] for name in self.weights()):
            raise ValueError(f"no loss has a weight: set one of {', '.join(self.weights())}")

    def weights(self) -> list[str]:
        """The names of the weights; the other fields are what losses are told."""
        told = ("temperature", "scale", "margin")
        return [f.name for f in dataclasses.fields(self) if not f.name.endswith(told)]


@dataclass
class Training:
    """What all trainings share.

    Attributes:
        dataset: folder of Parquet files (`{train,validation,test}-*.parquet` and a README.md), or
            the name of such a data set on the Hub.
        output: folder for checkpoints, TensorBoard and `final/`.
        cache: folder in which decoded speech and faces are kept between runs.
        seed: of initialisation, order, augmentation and noise.
        steps: optimiser steps in all.
        batch_size: pairs a process and forward pass.
        gradient_accumulation: forward passes a step.
        learning_rate: the highest.
        warmup_steps: in which the learning rate rises from 0.
        decay_share: last share of the steps, in which the learning rate falls to 0 as a cosine.
        decay_factor: by which the learning rate is multiplied after every `decay_every` steps.
        decay_every: steps.
        weight_decay: AdamW's, on matrices only; without it AdamW is Adam.
        adam_beta1: decay of AdamW's mean of gradients.
        adam_beta2: decay of its mean of squared gradients.
        adam_eps: what it adds to their root.
        max_grad_norm: to which gradients are clipped; `.inf` does not clip.
        mixed_precision: "no" or "bf16".
        log_every: steps between lines in TensorBoard.
        validate_every: steps between validations.
        checkpoint_every: steps between checkpoints.
        keep_checkpoints: how many of the latest stay.
        save_dtype: of the weights in `final/`, "float16" or "float32".
    """

    dataset: str = "data/cast"
    output: str = "runs/training"
    cache: str = ".cache/training"
    seed: int = 0
    steps: int = 1000
    batch_size: int = 32
    gradient_accumulation: int = 1
    learning_rate: float = 1e-3
    warmup_steps: int = 100
    decay_share: float = 0.5
    decay_factor: float = 1.0
    decay_every: int = 10_000
    weight_decay: float = 0.01
    adam_beta1: float = 0.9
    adam_beta2: float = 0.999
    adam_eps: float = 1e-8
    max_grad_norm: float = 1.0
    mixed_precision: str = "bf16"
    log_every: int = 20
    validate_every: int = 500
    checkpoint_every: int = 250
    keep_checkpoints: int = 2
    save_dtype: str = "float16"

    def __post_init__(self):
        if self.mixed_precision not in ("no", "bf16"):
            raise ValueError(
                f'mixed_precision must be "no" or "bf16", got {self.mixed_precision!r}'
            )
        if self.save_dtype not in ("float16", "float32"):
            raise ValueError(f'save_dtype must be "float16" or "float32", got {self.save_dtype!r}')
        counts = ("steps", "batch_size", "gradient_accumulation", "log_every", "validate_every")
        for name in (*counts, "decay_every"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, got {getattr(self, name)}")
        if not 0 < self.decay_factor <= 1:
            raise ValueError(f"decay_factor must be above 0, at most 1, got {self.decay_factor}")

    def keep_beside(self, folder: Path) -> None:
        """Writes `training.json` beside what was trained, from which its card says how.

        It says nothing about the machine: neither where its output and cache were, nor whole paths.
        """
        said = {"kind": type(self).__name__} | dataclasses.asdict(self)
        for name in ("output", "cache"):
            del said[name]
        text = json.dumps(_shortened(said), indent=2, default=str) + "\n"
        (Path(folder) / TRAINING_FILE).write_text(text, encoding="utf-8")


def _shortened(value: Any) -> Any:
    """The same without whole paths, however deep they lie."""
    if isinstance(value, dict):
        return {name: _shortened(inner) for name, inner in value.items()}
    if isinstance(value, list):
        return [_shortened(inner) for inner in value]
    if isinstance(value, str) and Path(value).is_absolute():
        return "/".join(Path(value).parts[-2:])
    return value


@dataclass
class VoiceEncoderTraining(Training):
    """How a voice encoder is trained.

    Attributes:
        streaming: read speech from the data set's Parquet files as it is needed, on the Hub or in
            the folder, instead of decoding it once into the cache.
        workers: processes that make batches ahead; 0 makes them between the steps.
        model: arguments of `Speech2FaceConfig`, `voice_encoder_config` among them; what follows
            from the data set (teacher, mean) is filled in.
        frozen: parts that are not trained, by the beginning of their parameters' names, such as
            "voice_encoder.feature_extractor".
        learning_rates: the highest of single parts, likewise named; the others have
            `learning_rate`.
        gradient_checkpointing: compute the backbone's layers twice, and keep less of them.
        early_stopping: end after so many validations without a better `best_metric`; None trains
            all steps.
        best_metric: figure of a validation by which the best checkpoint is chosen, and kept.
        pretrained: what to start from, on the Hub or in a folder: a `Speech2FaceModel`, of which
            all is kept but the mean face, or an audio backbone; or None.
        filter_bank: "none", "frozen" or "trained": whether the first convolution starts as a bank
            of band-pass filters, and whether it then learns.
        crop_seconds: length of the training clips, seconds.
        targets: "face", the embedding of the speaker's picture, or "expected_face", the mean of
            the faces that go with what the data set states of the voice, see
            `training.expected_faces`.
        voice_teacher: who `losses.distillation` learns from, a backend's name or more; or None.
        feature_decoder: folder of a trained `NormalizedFaceDecoder`, whose first layer
            `losses.feature_l1` compares by; or None. Its embeddings were centred by its own
            training set's mean, so train it on the same data set.
        losses: their weights.
        augmentation: of the speech; None trains on it as it is.
        validation_pairs: how many pairs a validation listens to at most.
    """

    streaming: bool = False
    workers: int = 0
    model: dict[str, Any] = field(default_factory=dict)
    frozen: list[str] = field(default_factory=list)
    learning_rates: dict[str, float] = field(default_factory=dict)
    gradient_checkpointing: bool = False
    early_stopping: int | None = None
    best_metric: str = "verification_auc"
    pretrained: str | None = None
    filter_bank: str = "none"
    crop_seconds: float = 4.0
    targets: str = "face"
    voice_teacher: VoiceTeacher | str | None = None
    feature_decoder: str | None = None
    losses: VoiceEncoderLosses = field(default_factory=VoiceEncoderLosses)
    augmentation: Augmentation | None = field(default_factory=Augmentation)
    validation_pairs: int = 600

    def __post_init__(self):
        super().__post_init__()
        if self.filter_bank not in ("none", "frozen", "trained"):
            raise ValueError(
                f'filter_bank must be "none", "frozen" or "trained", got {self.filter_bank!r}'
            )
        if self.targets not in ("face", "expected_face"):
            raise ValueError(f'targets must be "face" or "expected_face", got {self.targets!r}')
        if isinstance(self.voice_teacher, str):
            self.voice_teacher = VoiceTeacher(self.voice_teacher)
        if self.losses.distillation and self.voice_teacher is None:
            raise ValueError("losses.distillation needs a voice_teacher: set it to ge2e")
        if self.voice_teacher is not None and not self.losses.distillation:
            raise ValueError(
                "a voice_teacher is named but losses.distillation is 0: give it a weight, or name "
                "no teacher"
            )
        if self.batch_size == 1 and (self.losses.distillation or self.losses.voice_parameters):
            raise ValueError(
                "losses.distillation and losses.voice_parameters standardise over the batch: set "
                "batch_size to 2 or more"
            )
        if self.losses.feature_l1 and self.feature_decoder is None:
            raise ValueError(
                "losses.feature_l1 needs a feature_decoder: name the folder normalized_decoder/ "
                "of one trained by training.train_normalized_decoder"
            )
        if self.feature_decoder is not None and not self.losses.feature_l1:
            raise ValueError(
                "a feature_decoder is named but losses.feature_l1 is 0: give it a weight, or name "
                "no decoder"
            )


@dataclass
class DiffusionTraining(Training):
    """What the trainings of a diffusion decoder share.

    Attributes:
        pixels: height and width of the faces.
        flip: share of the faces that are mirrored (their embedding stays; it is near, not equal).
        embedding_noise: largest standard deviation of the noise on the embedding, relative to the
            embeddings' own: draws from a voice lie a little beside the faces' manifold.
        ema_decay: the highest decay of the averaged weights.
        sample_every: steps between sample sheets.
        sample_steps: of the sampler, in a sample sheet.
        guidance_scale: in a sample sheet; the pipeline's is given to `assemble_checkpoint`.
    """

    adam_beta2: float = 0.99
    pixels: int = 64
    flip: float = 0.0
    embedding_noise: float = 0.2
    ema_decay: float = 0.999
    sample_every: int = 500
    sample_steps: int = 10
    guidance_scale: float = 1.5


@dataclass
class FaceDecoderTraining(DiffusionTraining):
    """How the diffusion decoder is trained.

    Attributes:
        unet: arguments of `UNet2DConditionModel`; `in_channels` 12 and `sample_size` 32 stand for
            64x64 pixels seen as 2x2 patches.
        projection: arguments of `FaceEmbeddingProjection`; teacher and scale are filled in.
        vae: folder or Hub name of an `AutoencoderKL`, frozen, whose latents the UNet sees instead
            of pixels; None for pixels.
        scheduler: `prediction_type: flow`, or arguments of `DDPMScheduler`, whose noise is learnt;
            see `training.diffusion.NoiseSchedule`.
        sampler: name of the diffusers scheduler that is saved for the pipeline.
        sampler_config: its arguments, beside what the noise schedule gives.
        condition_dropout: share of the faces learnt without their embedding, for guidance.
        snr_gamma: of min-SNR weighting (arXiv 2303.09556); a flow has none.
        snr_gamma_steps: how long that weighting lasts, the whole run if None. It learns shapes
            soon, but hardly weighs the noisiest timesteps, where the tone of the skin is decided;
            after it all timesteps weigh alike.
        embedding_loss: weight of one minus the cosine between the teacher's embedding of the
            predicted clean face and the embedding that was asked for, both centred; 0 needs no
            teacher. 0.01 helps; at 0.1 faces dissolve (training/README.md).
        embedding_loss_from: first step that has it: once there are faces to look at.
        embedding_loss_rows: how many faces of a batch the teacher looks at, at most; 11 ms each on
            a CPU core.
        embedding_loss_signal: the least share of signal, SNR / (1 + SNR), in what was denoised; of
            more noise, nobody could say whose face it was.
    """

    unet: dict[str, Any] = field(default_factory=dict)
    projection: dict[str, Any] = field(default_factory=dict)
    vae: str | None = None
    scheduler: dict[str, Any] = field(default_factory=dict)
    sampler: str = "DPMSolverMultistepScheduler"
    sampler_config: dict[str, Any] = field(default_factory=dict)
    condition_dropout: float = 0.1
    snr_gamma: float = 5.0
    snr_gamma_steps: int | None = None
    embedding_loss: float = 0.0
    embedding_loss_from: int = 0
    embedding_loss_rows: int = 8
    embedding_loss_signal: float = 0.3

    def __post_init__(self):
        super().__post_init__()
        if self.vae is not None and self.flip:
            raise ValueError("the latents of a VAE cannot be mirrored: set flip to 0")


@dataclass
class FaceDecoderDistillation(DiffusionTraining):
    """How a diffusion decoder learns to do in one pass a step what guidance does in two.

    Attributes:
        decoder: `final/` of the decoder that is imitated, and that the student starts from.
        guidance_scales: the lowest and the highest that it learns; 1 is none.
        guidance_embedding_size: of the embedding that tells the UNet the scale.
    """

    decoder: str = "runs/face_decoder/final"
    guidance_scales: tuple[float, float] = (1.0, 3.0)
    guidance_embedding_size: int = 64

    def __post_init__(self):
        super().__post_init__()
        low, high = self.guidance_scales
        if not 1 <= low <= high:
            raise ValueError(f"guidance_scales must rise from at least 1, got {low} and {high}")


@dataclass
class NormalizedDecoderLosses:
    """Weights of the paper's decoder's losses; see `training.losses` for each.

    Attributes:
        texture: difference of textures, of a range of 1.
        landmarks: squared distance of landmarks, relative to their variance.
        embedding: one minus the cosine between the teacher's embedding of the decoded face and the
            one that was asked for, both centred.
    """

    texture: float = 40.0
    landmarks: float = 1.0
    embedding: float = 0.5


@dataclass
class NormalizedDecoderTraining(Training):
    """How the paper's decoder is trained.

    Attributes:
        model: arguments of `NormalizedFaceDecoder`; teacher, size of its embeddings, their scale
            and the mean landmarks are filled in.
        losses: their weights.
        embedding_noise: largest standard deviation of the noise on the embedding, relative to the
            embeddings' own: what is predicted from a voice lies beside the faces' manifold.
        blended: share of a batch's embeddings that lie between two persons'; nobody has that face,
            and only the teacher tells whether it is right.
        ema_decay: the highest decay of the averaged weights.
        sample_every: steps between sample sheets.
    """

    adam_beta2: float = 0.99
    model: dict[str, Any] = field(default_factory=dict)
    losses: NormalizedDecoderLosses = field(default_factory=NormalizedDecoderLosses)
    embedding_noise: float = 0.2
    blended: float = 0.0
    ema_decay: float = 0.999
    sample_every: int = 500

    def __post_init__(self):
        super().__post_init__()
        if not 0 <= self.blended <= 1:
            raise ValueError(f"blended must be from 0 to 1, got {self.blended}")


def load_configuration(path: str | Path, kind: type, changes: dict | None = None) -> Any:
    """Reads a YAML file into a dataclass.

    Args:
        path: the YAML file.
        kind: the dataclass, for example `VoiceEncoderTraining`.
        changes: keys and values that are put in the place of the file's, nested as they are there.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: for a key that the dataclass does not have.
    """
    import yaml

    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"no configuration {path}: give the path of a YAML file")
    values = yaml.safe_load(path.read_text()) or {}
    return _from_dict(kind, _changed(values, changes) if changes else values, path.name)


def _changed(values: Any, changes: dict[str, Any]) -> dict[str, Any]:
    """Values with changes, key by key where both hold keys."""
    changed = dict(values) if isinstance(values, dict) else {}
    for name, value in changes.items():
        nested = isinstance(value, dict) and isinstance(changed.get(name), dict)
        changed[name] = _changed(changed[name], value) if nested else value
    return changed


def _from_dict(kind: type, values: dict[str, Any], where: str) -> Any:
    if not isinstance(values, dict):
        raise ValueError(f"{where} must hold keys and values, got {values!r}")
    fields = {f.name: f for f in dataclasses.fields(kind)}
    unknown = sorted(set(values) - set(fields))
    if unknown:
        raise ValueError(
            f"unknown key {unknown[0]!r} in {where}: choose among {', '.join(sorted(fields))}"
        )
    losses = NormalizedDecoderLosses if kind is NormalizedDecoderTraining else VoiceEncoderLosses
    nested = {"losses": losses, "augmentation": Augmentation, "voice_teacher": VoiceTeacher}
    arguments = {}
    for name, value in values.items():
        if name in nested and isinstance(value, dict):
            value = _from_dict(nested[name], value, f"{where}: {name}")
        elif isinstance(value, str) and fields[name].type in (float, int):
            raise ValueError(f"{name} in {where} must be a number, got {value!r}")
        arguments[name] = tuple(value) if name in PAIRS_OF_NUMBERS else value
    return kind(**arguments)
