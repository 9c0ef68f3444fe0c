"""What goes wrong, in one sentence for the visitor."""

import logging
import traceback
from contextlib import contextmanager

import gradio as gr

from .limits import Refusal

UNEXPECTED = "Something went wrong on the server: try again, or with another recording."

logger = logging.getLogger(__name__)


def sentence_of(error: Exception) -> str:
    """What a visitor reads of an error; of one that nobody foresaw, the log has where it was.

    Neither the message nor any value of it is logged: they might tell of a recording.
    """
    from modeling_speech2face import AudioError, NoSpeechError

    if isinstance(error, gr.Error):
        return error.message
    if isinstance(error, (Refusal, AudioError, NoSpeechError)):
        sentence = str(error)
        return sentence[:1].upper() + sentence[1:]
    where = "".join(traceback.format_tb(error.__traceback__))
    logger.error("unexpected %s\n%s", type(error).__name__, where)
    return UNEXPECTED


@contextmanager
def errors_in_one_sentence():
    """Turns whatever is raised within into a `gr.Error`, which gradio shows and does not log."""
    try:
        yield
    except Exception as error:
        raise gr.Error(sentence_of(error), print_exception=False) from None
