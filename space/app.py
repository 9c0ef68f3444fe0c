"""The web page: a voice is recorded or uploaded, and faces come out.

From a clone: `python -m space.app`. In a Space: this folder with `modeling_speech2face/` beside it.
"""

if __package__:  # from a clone
    from .page.layout import build_app, serve
else:  # in a Space, whose root this folder is
    from page.layout import build_app, serve


def main() -> None:
    """Serves the page."""
    app = build_app()
    serve(app)
    app.block_thread()


if __name__ == "__main__":
    main()
