"""Retrieval of a speaker's face by the voice.

A module of the library `evaluate`; the arithmetic is in `training/measures`.
"""

import datasets
import evaluate
import numpy as np

_CITATION = """\
@inproceedings{oh2019speech2face,
  title = {Speech2Face: Learning the Face Behind a Voice},
  author = {Oh, Tae-Hyun and Dekel, Tali and Kim, Changil and Mosseri, Inbar and Freeman, William T.
    and Rubinstein, Michael and Matusik, Wojciech},
  booktitle = {CVPR},
  year = {2019}
}
"""

_DESCRIPTION = """\
Recall at k, median rank and mean average precision of the speaker's face in a gallery, each beside
its chance; ties are decided by lot.
Every figure has a 95 % interval from a bootstrap over speakers.
"""

_KWARGS_DESCRIPTION = """
Args:
    predictions: (N, D) embeddings predicted from voices.
    references: (N, D) embeddings of the speakers' faces. Centre both by one mean face.
    speakers: (N,) whose each row is.
    gallery: (M, D) faces to search, by default each speaker's mean row of `references`.
    gallery_speakers: (M,) whose face each entry of `gallery` is.
    score: "cosine" (default), "l1" or "l2".
    at: the k of recall at k, by default 1, 2, 5, 10.
    gallery_sizes: smaller galleries, by default 100 and 5000; larger ones than M are left out.
    rounds: int, resamples of the bootstrap, 1000 by default.
    seed: int, of the resamples, 0 by default.

Returns:
    dict: `rounds`, `seed`, and for each measure a dict of value, interval (low, high; 95 %),
    speakers, samples and chance. Measures: `recall_at_{k}`, `recall_at_{k}_of_{size}`,
    `median_rank`, `mean_average_precision`.

Example:
    >>> import evaluate
    >>> metric = evaluate.load("training/metrics/retrieval")
    >>> figures = metric.compute(predictions=x, references=y, speakers=names)
"""

_ELSEWHERE = (
    "cannot import training.measures: run this from a clone of Speech2Face, or put the clone on "
    "PYTHONPATH"
)


@evaluate.utils.file_utils.add_start_docstrings(_DESCRIPTION, _KWARGS_DESCRIPTION)
class Retrieval(evaluate.Metric):
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
        gallery=None,
        gallery_speakers=None,
        score="cosine",
        at=(1, 2, 5, 10),
        gallery_sizes=(100, 5000),
        rounds=1000,
        seed=0,
    ):
        try:
            from training.measures.resampling import SpeakerBootstrap
            from training.measures.retrieval import ranks, retrieval, speaker_gallery
        except ModuleNotFoundError as error:
            raise ImportError(_ELSEWHERE) from error
        if (gallery is None) != (gallery_speakers is None):
            raise ValueError("pass gallery and gallery_speakers together, or neither")
        if gallery is None:
            gallery, gallery_speakers = speaker_gallery(references, speakers)
        found = ranks(
            np.asarray(predictions), np.asarray(gallery), speakers, gallery_speakers, score
        )
        bootstrap = SpeakerBootstrap(speakers, rounds, seed)
        figures = retrieval(bootstrap, found, gallery_sizes, at)
        return {"rounds": rounds, "seed": seed} | {k: f.to_json() for k, f in figures.items()}
