"""A voice encoder's card, and its way to the Hugging Face Hub."""

from pathlib import Path
from typing import Any

from training.configuration import VoiceEncoderTraining
from training.hub import push_files
from training.model_card import (
    CARDS,
    count_parameters,
    in_millions,
    is_written_by_hand,
    render_card,
)

# Figures of a validation that the card shows: its words, and what knowing nothing would score.
SHOWN = {
    "recall_at_1": ("R@1", "chance_at_1"),
    "recall_at_5": ("R@5", "chance_at_5"),
    "recall_at_10": ("R@10", "chance_at_10"),
    "verification_auc": ("verification AUC", 0.5),
    "verification_auc_same_gender": ("verification AUC among one gender", 0.5),
    "gender_auc": ("AUC of gender, as faces separate it", 0.5),
    "cosine": ("cosine to the true embedding", 0.0),
    "explained": ("share of the faces' variance", 0.0),
}


def write_card(
    folder: Path, config: VoiceEncoderTraining, figures: dict[str, Any], name: str | None = None
) -> None:
    """Writes the card of a finished voice encoder, unless somebody wrote one by hand.

    Args:
        folder: with its `config.json` and `model.safetensors`.
        config: of the training.
        figures: of its validation, as in `validation.json`.
        name: of its repository; None for the folder's.
    """
    from huggingface_hub import EvalResult, ModelCard

    from modeling_speech2face import Speech2FaceConfig

    if is_written_by_hand(folder / "README.md"):
        return
    model = Speech2FaceConfig.from_pretrained(folder)
    rows = [
        (words, figures[key], figures[chance] if isinstance(chance, str) else chance)
        for key, (words, chance) in SHOWN.items()
        if key in figures
    ]
    weights = {name: getattr(config.losses, name) for name in config.losses.weights()}
    name = name or f"{Path(config.output).name}/{folder.name}"
    dataset = Path(config.dataset).name if Path(config.dataset).is_dir() else config.dataset
    text = render_card(
        CARDS / "voice_encoder.md",
        {},
        name,
        backbone=model.voice_encoder_config.model_type,
        embedding_size=model.face_embedding_size,
        teacher=model.face_recogniser,
        parameters=in_millions(count_parameters(folder / "model.safetensors")),
        steps=f"{figures['steps']:,}",
        batch=config.batch_size * config.gradient_accumulation,
        crop_seconds=config.crop_seconds,
        dataset=dataset,
        losses=", ".join(f"{k.replace('_', ' ')} {w:g}" for k, w in weights.items() if w),
        pretrained=config.pretrained,
        voice_teacher=config.voice_teacher and config.voice_teacher.backend,
        speakers=figures["speakers"],
        gallery=figures["gallery"],
        figures=[(words, f"{value:.3f}", f"{chance:.3f}") for words, value, chance in rows],
    )
    card = ModelCard(text)
    card.data.model_name = name.split("/")[-1]
    card.data.eval_results = [
        EvalResult(
            task_type="feature-extraction",
            dataset_type=dataset,
            dataset_name=f"{dataset}, validation speakers",
            metric_type=words,
            metric_value=round(value, 4),
        )
        for words, value, _ in rows
    ]
    card.save(folder / "README.md")


def push(folder: Path, repo: str, private: bool) -> str:
    """Pushes a finished voice encoder, in one commit.

    Args:
        folder: `final/` of the training.
        repo: its name on the Hub.
        private: whether only its owner is to see it; a repository that exists stays as it is.

    Returns:
        The address.

    Raises:
        RuntimeError: if the Hub refuses; the folder stays, and `hf upload` can be tried again.
    """
    files = {path.name: path for path in sorted(folder.iterdir()) if path.is_file()}
    try:
        return push_files(repo, files, "Voice encoder of Speech2Face", private=private)[0]
    except RuntimeError as error:
        raise RuntimeError(f"{error}; {folder} is whole: `hf upload {repo} {folder}`") from error
