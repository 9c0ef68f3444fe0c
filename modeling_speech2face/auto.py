"""Makes `AutoConfig`, `AutoModel` and `AutoFeatureExtractor` know this package.

Importing the Auto classes takes longer than everything that `import modeling_speech2face` may take,
so they are not told at once, but as soon as somebody imports them.
"""

import sys
from importlib import import_module
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec, PathFinder
from types import ModuleType

_AUTO = "transformers.models.auto"
# An Auto class and its module, our class and its module.
_REGISTRATIONS = (
    (
        "AutoConfig",
        f"{_AUTO}.configuration_auto",
        "Speech2FaceConfig",
        f"{__package__}.configuration_speech2face",
    ),
    (
        "AutoConfig",
        f"{_AUTO}.configuration_auto",
        "SpectrogramEncoderConfig",
        f"{__package__}.configuration_speech2face",
    ),
    (
        "AutoModel",
        f"{_AUTO}.modeling_auto",
        "Speech2FaceModel",
        f"{__package__}.modeling_speech2face",
    ),
    (
        "AutoModel",
        f"{_AUTO}.modeling_auto",
        "SpectrogramEncoder",
        f"{__package__}.modeling_spectrogram_encoder",
    ),
    (
        "AutoFeatureExtractor",
        f"{_AUTO}.feature_extraction_auto",
        "Speech2FaceFeatureExtractor",
        f"{__package__}.feature_extraction_speech2face",
    ),
)
_WATCHED = {module for _, auto, _, own in _REGISTRATIONS for module in (auto, own)}


def register_auto_classes() -> None:
    """Registers with the Auto classes that are imported, and later with the others."""
    sys.meta_path.insert(0, _WatchingFinder())
    for _, auto, _, _ in _REGISTRATIONS:
        if auto in sys.modules:
            _register_with(auto)


def _register_with(module_name: str) -> None:
    """Registers what can be, now that this module has been imported."""
    for auto_class, auto_module, own_class, own_module in _REGISTRATIONS:
        if module_name == auto_module:
            import_module(own_module)
        if module_name not in (auto_module, own_module):
            continue
        auto = getattr(sys.modules.get(auto_module), auto_class, None)
        own = getattr(sys.modules.get(own_module), own_class, None)
        # Our module may be half imported: it asked for the Auto class. Then its own turn comes.
        if auto is not None and own is not None:
            from .configuration_speech2face import Speech2FaceConfig

            if auto_class == "AutoConfig":
                key = own.model_type
            else:  # a model names its configuration, a feature extractor does not
                key = getattr(own, "config_class", Speech2FaceConfig)
            auto.register(key, own, exist_ok=True)


class _WatchingFinder(MetaPathFinder):
    """Finds the modules above as Python does, and has them followed by their registration."""

    def find_spec(self, fullname, path, target=None) -> ModuleSpec | None:
        spec = PathFinder.find_spec(fullname, path, target) if fullname in _WATCHED else None
        if spec is not None and spec.loader is not None:
            spec.loader = _RegisteringLoader(spec.loader)
        return spec


class _RegisteringLoader(Loader):
    """Runs a module as its own loader does, then registers."""

    def __init__(self, loader: Loader):
        self.loader = loader

    def create_module(self, spec: ModuleSpec) -> ModuleType | None:
        return self.loader.create_module(spec)

    def exec_module(self, module: ModuleType) -> None:
        module.__spec__.loader = module.__loader__ = self.loader  # as if nobody had watched
        self.loader.exec_module(module)
        _register_with(module.__name__)
