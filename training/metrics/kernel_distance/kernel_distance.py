"""Kernel distance of generated and real faces, as a module for `evaluate`."""

import datasets
import evaluate

_CITATION = """\
@inproceedings{binkowski2018demystifying,
  title = {Demystifying {MMD} {GANs}},
  author = {Bi{\\'n}kowski, Miko{\\l}aj and Sutherland, Danica J. and Arbel, Michael and Gretton,
    Arthur},
  booktitle = {ICLR},
  year = {2018}
}
"""

_DESCRIPTION = """\
Squared maximum mean discrepancy of generated and real faces on a face recogniser's features, with
the kernel (x.y / D + 1)^3 of the kernel inception distance; unbiased, speakers never compared with
themselves.
Every figure has a 95 % interval from a bootstrap over speakers.
"""

_KWARGS_DESCRIPTION = """
Args:
    predictions: (N, D) embeddings of generated faces, as the recogniser gives them.
    references: (N, D) embeddings of real faces of the same speakers, row by row.
    speakers: (N,) whose each row is.
    rounds: int, resamples of the bootstrap, 1000 by default.
    seed: int, of the resamples, 0 by default.

Returns:
    dict: `rounds`, `seed`, and for each measure a dict of value, interval (low, high; 95 %),
    speakers, samples and chance. Measures: `kernel_distance`, and `real_halves`, that
    between the real faces of two random halves of the speakers.

Example:
    >>> import evaluate
    >>> metric = evaluate.load("training/metrics/kernel_distance")
    >>> figures = metric.compute(predictions=x, references=y, speakers=names)
"""

_ELSEWHERE = (
    "cannot import training.measures: run this from a clone of Speech2Face, or put the clone on "
    "PYTHONPATH"
)


@evaluate.utils.file_utils.add_start_docstrings(_DESCRIPTION, _KWARGS_DESCRIPTION)
class KernelDistance(evaluate.Metric):
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

    def _compute(self, predictions, references, speakers, rounds=1000, seed=0):
        try:
            from training.measures.generated_faces import kernel_distance
            from training.measures.resampling import SpeakerBootstrap
        except ModuleNotFoundError as error:
            raise ImportError(_ELSEWHERE) from error
        bootstrap = SpeakerBootstrap(speakers, rounds, seed)
        figures = kernel_distance(bootstrap, predictions, references)
        return {"rounds": rounds, "seed": seed} | {k: f.to_json() for k, f in figures.items()}
