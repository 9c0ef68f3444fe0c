"""The web page: a voice is recorded or uploaded, and faces come out.

From a clone: `python -m space.app`. In a Space: this folder with `modeling_speech2face/` beside it.
"""

if __package__:  # from a clone
    from .page.layout import LAUNCH_OPTIONS, build_app
else:  # in a Space, whose root this folder is
    from page.layout import LAUNCH_OPTIONS, build_app


def main() -> None:
    """Serves the page."""
    build_app().launch(**LAUNCH_OPTIONS)


if __name__ == "__main__":
    main()
