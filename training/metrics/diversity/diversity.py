"""Diversity of the faces of one voice, as a module for `evaluate`."""

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
Mean distance among the embeddings of several faces generated from one voice, and its share of the
distance between different persons.
Every figure has a 95 % interval from a bootstrap over speakers.
"""

_KWARGS_DESCRIPTION = """
Args:
    predictions: (V, n, D) embeddings of the n >= 2 faces of each voice.
    speakers: (V,) whose each voice is.
    reference_distance: mean distance between different persons' real faces, one number or (V,).
    rounds: int, resamples of the bootstrap, 1000 by default.
    seed: int, of the resamples, 0 by default.

Returns:
    dict: `rounds`, `seed`, and for each measure a dict of value, interval (low, high; 95 %),
    speakers, samples and chance. Measures: `distance`, `relative_distance`.

Example:
    >>> import evaluate
    >>> metric = evaluate.load("training/metrics/diversity")
    >>> figures = metric.compute(predictions=x, speakers=names, reference_distance=0.6)
"""

_ELSEWHERE = (
    "cannot import training.measures: run this from a clone of Speech2Face, or put the clone on "
    "PYTHONPATH"
)


@evaluate.utils.file_utils.add_start_docstrings(_DESCRIPTION, _KWARGS_DESCRIPTION)
class Diversity(evaluate.Metric):
    def _info(self):
        faces = datasets.Sequence(datasets.Sequence(datasets.Value("float32")))
        return evaluate.MetricInfo(
            description=_DESCRIPTION,
            citation=_CITATION,
            inputs_description=_KWARGS_DESCRIPTION,
            features=datasets.Features(
                {
                    "predictions": faces,
                    "speakers": datasets.Value("string"),
                }
            ),
        )

    def _compute(self, predictions, speakers, reference_distance, rounds=1000, seed=0):
        try:
            from training.measures.generated_faces import diversity
            from training.measures.resampling import SpeakerBootstrap
        except ModuleNotFoundError as error:
            raise ImportError(_ELSEWHERE) from error
        bootstrap = SpeakerBootstrap(speakers, rounds, seed)
        if len({len(of_voice) for of_voice in predictions}) > 1:
            raise ValueError("every voice needs as many images: draw the same number of each")
        draws = np.asarray(predictions)  # (V, n, D)
        figures = diversity(bootstrap, draws, reference_distance)
        return {"rounds": rounds, "seed": seed} | {k: f.to_json() for k, f in figures.items()}
