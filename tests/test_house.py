"""The house stands as it was drawn: who imports whom, what is installed, what the wheel holds."""

import ast
import configparser
import re
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from training.torchaudio_on_cpu import remove_cuda_extensions

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = "modeling_speech2face"
FOLDERS = {PACKAGE, "dataset_scripts", "training", "space", "tests"}
# May be imported, beyond the folder's own modules and the package's public names.
MAY_ALSO_IMPORT = {"training": {"dataset_scripts.faces"}}
NOT_FOR_THE_PACKAGE = {"gradio", "datasets", "accelerate", "dlib", "evaluate", "torchaudio"}


def imports_of(path: Path) -> set[str]:
    """Dotted names that a file imports, anywhere in it: `a.b.name` for a name of `a.b`."""
    names = set()
    for node in ast.walk(ast.parse(path.read_text(), str(path))):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            parents = path.relative_to(ROOT).parts[: -node.level] if node.level else ()
            module = ".".join([*parents, *([node.module] if node.module else [])])
            names |= {f"{module}.{alias.name}" for alias in node.names}
    return names


def sources(folder: str) -> list[Path]:
    return sorted((ROOT / folder).rglob("*.py"))


def within(name: str, module: str) -> bool:
    return name == module or name.startswith(module + ".")


@pytest.mark.parametrize("folder", sorted(FOLDERS - {"tests"}))
def test_who_imports_whom(folder):
    import modeling_speech2face

    public = {f"{PACKAGE}.{name}" for name in modeling_speech2face.__all__} | {PACKAGE}
    assert sources(folder)
    wrong = []
    for path in sources(folder):
        for name in imports_of(path):
            home = name.split(".")[0]
            if home not in FOLDERS or home == folder:
                continue
            if folder != PACKAGE and name in public:
                continue
            if any(within(name, module) for module in MAY_ALSO_IMPORT.get(folder, ())):
                continue
            wrong.append(f"{path.relative_to(ROOT)} imports {name}")
    assert not wrong


def test_the_package_does_without_the_heavy_and_the_foreign():
    found = {name.split(".")[0] for path in sources(PACKAGE) for name in imports_of(path)}
    assert not found & NOT_FOR_THE_PACKAGE


def test_the_package_is_flat():
    # transformers copies the sources for remote code, and only a flat package survives that.
    assert not [path for path in sources(PACKAGE) if path.parent != ROOT / PACKAGE]


def test_importing_the_package_loads_nothing_heavy():
    code = (
        f"import sys, {PACKAGE}; "
        "print(*{'torch', 'diffusers', 'transformers', 'av', 'numpy'} & set(sys.modules))"
    )
    result = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    assert result.stdout.strip() == ""


def test_public_names_are_where_the_package_says():
    import modeling_speech2face

    for name in modeling_speech2face.__all__:
        assert getattr(modeling_speech2face, name).__name__ == name


def setup_cfg() -> configparser.ConfigParser:
    config = configparser.ConfigParser(interpolation=None)
    config.read(ROOT / "setup.cfg")
    return config


def requirements(text: str) -> list[Requirement]:
    lines = [line.split("#")[0].strip() for line in text.splitlines()]
    return [Requirement(line) for line in lines if line and not line.startswith("--")]


def all_requirements() -> dict[str, list[Requirement]]:
    """What setup.cfg asks for: under "" for everybody, under an extra's name for that extra."""
    config = setup_cfg()
    extras = {name: requirements(text) for name, text in config["options.extras_require"].items()}
    return {"": requirements(config["options"]["install_requires"]), **extras}


def pins() -> dict[str, Requirement]:
    pinned = requirements((ROOT / "constraints.txt").read_text())
    return {canonicalize_name(requirement.name): requirement for requirement in pinned}


def test_every_requirement_has_a_version_that_is_known_to_work():
    for wanted in all_requirements().values():
        for requirement in wanted:
            pin = pins().get(canonicalize_name(requirement.name))
            assert pin is not None, f"{requirement.name} is missing from constraints.txt"
            for specifier in pin.specifier:
                if specifier.operator == "==":
                    assert requirement.specifier.contains(specifier.version), requirement.name


def distributions() -> dict[str, set[str]]:
    """Which installed distributions bring a top-level module."""
    from importlib.metadata import packages_distributions

    return {
        module: {canonicalize_name(name) for name in names}
        for module, names in packages_distributions().items()
    }


@pytest.mark.parametrize(
    ("folder", "extras"),
    [
        (PACKAGE, []),
        ("dataset_scripts", ["data", "ray"]),
        ("training", ["train", "distill", "onnx"]),
        ("space", ["space"]),
    ],
)
def test_what_a_folder_imports_is_what_its_extra_installs(folder, extras):
    declared = {
        canonicalize_name(requirement.name)
        for extra in ["", *extras]
        for requirement in all_requirements()[extra]
    }
    brought_by = distributions()
    undeclared = set()
    for path in sources(folder):
        for module in {name.split(".")[0] for name in imports_of(path)}:
            if module in sys.stdlib_module_names or module in FOLDERS:
                continue
            if module in brought_by and not brought_by[module] & declared:
                undeclared.add(module)
    assert not undeclared


def test_torchaudio_loses_its_extensions_only_where_they_cannot_load(tmp_path):
    def install() -> Path:
        package = tmp_path / "torchaudio"
        (package / "lib").mkdir(parents=True, exist_ok=True)
        (package / "lib" / "libtorchaudio.so").touch()
        return package

    wants_cuda = "OSError: libcudart.so.13: cannot open shared object file"
    for cpu_only, error, removed in [
        (True, wants_cuda, True),
        (False, wants_cuda, False),
        (True, "", False),
        (True, "ImportError: no module named numpy", False),
    ]:
        package = install()
        assert remove_cuda_extensions(package, cpu_only, error) is removed
        assert (package / "lib").exists() is not removed
    assert remove_cuda_extensions(tmp_path / "elsewhere", True, wants_cuda) is False


@pytest.mark.slow
def test_the_wheel_holds_the_package_and_its_weights_alone(tmp_path):
    clone = tmp_path / "clone"  # what an earlier build left in the tree must not get in
    leave_out = (".*", "build", "data", "runs", "outputs", "*.egg-info", "__pycache__")
    shutil.copytree(ROOT, clone, ignore=shutil.ignore_patterns(*leave_out))
    command = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "-w", tmp_path, clone]
    subprocess.run(command, check=True)
    (wheel,) = tmp_path.glob("*.whl")
    names = zipfile.ZipFile(wheel).namelist()
    assert {name.split("/")[0] for name in names} <= {PACKAGE, wheel_metadata(names)}
    checkpoint = {
        str(path.relative_to(ROOT))
        for path in (ROOT / PACKAGE / "demo_checkpoint").rglob("*")
        if path.is_file()
    }
    assert any(name.endswith(".safetensors") for name in checkpoint)
    assert checkpoint <= set(names)
    assert wheel.stat().st_size < 26e6  # the checkpoint's 24 MB and the code
    entry_points = zipfile.ZipFile(wheel).read(f"{wheel_metadata(names)}/entry_points.txt").decode()
    assert re.search(rf"speech2face = {PACKAGE}\.__main__:main", entry_points)


def wheel_metadata(names: list[str]) -> str:
    (folder,) = {name.split("/")[0] for name in names if ".dist-info/" in name}
    return folder


def test_no_committed_file_is_too_large():
    checkpoint = [
        path for path in (ROOT / PACKAGE / "demo_checkpoint").rglob("*") if path.is_file()
    ]
    sizes = [path.stat().st_size for path in checkpoint]
    assert sizes and max(sizes) <= 15e6 and sum(sizes) <= 24e6
    assert not [path for path in checkpoint if path.suffix in {".bin", ".pt", ".pkl", ".ckpt"}]


def makefile_targets() -> set[str]:
    return set(re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))


def test_the_public_ci_runs_what_ours_runs():
    import yaml

    ours = (ROOT / ".ci" / "run").read_text()
    workflow = yaml.safe_load((ROOT / ".github" / "workflows" / "ci.yml").read_text())
    (job,) = workflow["jobs"].values()
    targets = job["strategy"]["matrix"]["target"]
    assert targets == re.search(r"for target in (.+); do", ours)[1].split()
    assert set(targets) <= makefile_targets()
    steps = [step["run"] for step in job["steps"] if "run" in step]
    assert steps[-1] == 'make ${{ matrix.target }} PIP_ARGS="$PIP_ARGS"'
    packages = re.search(r"packages=\((.+)\)", ours)[1]
    assert f"apt-get install -y -qq --no-install-recommends {packages}" in steps[0]
    assert workflow["permissions"] == {"contents": "read"} and "permissions" not in job
    assert job["env"]["PIP_ARGS"].endswith("/whl/cpu")
    (cache,) = [step["with"] for step in job["steps"] if "cache" in step.get("uses", "")]
    assert cache["path"] == job["env"]["PIP_CACHE_DIR"]


def test_how_to_cite_it():
    import yaml

    import modeling_speech2face

    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    assert {"cff-version", "message", "title", "authors"} <= set(citation)  # what the format asks
    assert citation["cff-version"] == "1.2.0" and citation["type"] == "software"
    assert citation["version"] == modeling_speech2face.__version__
    assert citation["license"] == setup_cfg()["metadata"]["license"]
    (paper,) = citation["references"]
    assert [author["family-names"] for author in paper["authors"]][:2] == ["Oh", "Dekel"]
    assert paper["title"] in (ROOT / "README.md").read_text()
