"""Association of voices and faces.

A module of the library `evaluate`; the arithmetic is in `training/measures`.
"""

import datasets
import evaluate
import numpy as np

_CITATION = """\
@inproceedings{nagrani2018seeing,
  title = {Seeing Voices and Hearing Faces: Cross-modal Biometric Matching},
  author = {Nagrani, Arsha and Albanie, Samuel and Zisserman, Andrew},
  booktitle = {CVPR},
  year = {2018}
}
"""

_DESCRIPTION = """\
Matching 1 in n, verification AUC and equal error rate over voice-face pairs, unrestricted and with
labels (gender, age group) held equal between the right face and the others.
Every figure has a 95 % interval from a bootstrap over speakers.
"""

_KWARGS_DESCRIPTION = """
Args:
    predictions: (N, D) embeddings predicted from voices.
    references: (N, D) embeddings of the speakers' faces. Centre both by one mean face.
    speakers: (N,) whose each row is.
    restrictions: dict of name to (N,) labels, a speaker's rows alike; "" is unknown and takes no
        part. For example {"same_gender": genders}.
    candidates: the n of matching 1 in n, by default 2, 5, 10.
    rounds: int, resamples of the bootstrap, 1000 by default.
    seed: int, of the resamples, 0 by default.

Returns:
    dict: `rounds`, `seed`, and for each measure a dict of value, interval (low, high; 95 %),
    speakers, samples and chance. Measures: `matching_1_in_{n}`, `auc`, `eer`,
    and each with `_{restriction}` behind it.

Example:
    >>> import evaluate
    >>> metric = evaluate.load("training/metrics/association")
    >>> figures = metric.compute(predictions=x, references=y, speakers=names,
    ...     restrictions={"same_gender": genders})
"""

_ELSEWHERE = (
    "cannot import training.measures: run this from a clone of Speech2Face, or put the clone on "
    "PYTHONPATH"
)


@evaluate.utils.file_utils.add_start_docstrings(_DESCRIPTION, _KWARGS_DESCRIPTION)
class Association(evaluate.Metric):
    def _info(self):
        vector = datasets.Sequence(datasets.Value("float32"))
        return evaluate.MetricInfo(
            description=_DESCRIPTION,
            citation=_CITATION,
            inputs_description=_KWARGS_DESCRIPTION,
            features=datasets.Features(
                {
                    "predictions": vector,
                    "references": vector,
                    "speakers": datasets.Value("string"),
                }
            ),
        )

    def _compute(
        self,
        predictions,
        references,
        speakers,
        restrictions=None,
        candidates=(2, 5, 10),
        rounds=1000,
        seed=0,
    ):
        try:
            from training.measures.association import association
            from training.measures.resampling import SpeakerBootstrap
            from training.measures.retrieval import speaker_gallery
        except ModuleNotFoundError as error:
            raise ImportError(_ELSEWHERE) from error
        speakers = np.asarray(speakers)
        gallery, gallery_speakers = speaker_gallery(references, speakers)
        labels = {}
        for name, of_rows in (restrictions or {}).items():
            of_rows = np.asarray(of_rows)
            if of_rows.shape != (len(speakers),):
                raise ValueError(f"{name} needs one label for each of the {len(speakers)} rows")
            known = dict(zip(speakers.tolist(), of_rows.tolist(), strict=True))
            of_faces = np.asarray([known[speaker] for speaker in gallery_speakers.tolist()])
            if any(known[s] != label for s, label in zip(speakers.tolist(), of_rows, strict=True)):
                raise ValueError(f"{name} must be the same in all rows of a speaker")
            labels[name] = of_rows, of_faces
        bootstrap = SpeakerBootstrap(speakers, rounds, seed)
        figures = association(
            bootstrap,
            np.asarray(predictions),
            gallery,
            speakers,
            gallery_speakers,
            labels,
            candidates=candidates,
        )
        return {"rounds": rounds, "seed": seed} | {k: f.to_json() for k, f in figures.items()}
