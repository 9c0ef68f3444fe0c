"""Pictures that the API returns, signed: gradio writes them to files, the Space deletes them."""

import functools

from modeling_speech2face import load_signing_key, sign

signing_key = functools.cache(load_signing_key)  # the Space's own, or that of its secrets


def signing(component):
    """Makes a component sign the files of the generated pictures that it returns.

    Args:
        component (`gradio.Image` or `gradio.Gallery`): an output.

    Returns:
        The same one. (A class of its own would make gradio write a stub beside this file.)
    """
    unsigned = component.postprocess

    def postprocess(value):
        data = unsigned(value)
        pictures = [item.image for item in data.root] if hasattr(data, "root") else [data]
        for picture in pictures:
            if picture is not None:
                sign(picture.path, signing_key())
        return data

    component.postprocess = postprocess
    return component
