"""What no file of the project may do: run what it reads."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
FILES = [
    path
    for room in ("minority", "datasets", "tasks", "flows", "benchmarks", "examples")
    for path in ROOT.glob(f"{room}/**/*.py")
]
#: Calls that run code found in what they read, or write where an archive says.
FORBIDDEN = {
    "pickle.load",
    "pickle.loads",
    "cloudpickle.load",
    "cloudpickle.loads",
    "dill.load",
    "dill.loads",
    "joblib.load",
    "marshal.loads",
    "pd.read_pickle",
    "pandas.read_pickle",
    "shelve.open",
    "yaml.load",
    "yaml.full_load",
    "yaml.unsafe_load",
    "eval",
    "exec",
    "os.system",
    "tar.extract",
    "archive.extract",
}
METHODS = {"extractall", "unpack_archive"}
#: Calls that are safe only with this argument.
REQUIRED = {
    "torch.load": ("weights_only", True),
    "np.load": ("allow_pickle", False),
    "numpy.load": ("allow_pickle", False),
}


def calls(path):
    """(line, dotted name, keyword arguments) of every call in a file."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Call):
            keywords = {word.arg: word.value.value for word in node.keywords if isinstance(word.value, ast.Constant)}
            yield node.lineno, ast.unparse(node.func), keywords


def misdeeds(path):
    for line, name, keywords in calls(path):
        argument, value = REQUIRED.get(name, (None, None))
        if (
            name in FORBIDDEN
            or name.rpartition(".")[2] in METHODS
            or (argument is not None and keywords.get(argument) is not value)
            or keywords.get("shell") is True
        ):
            yield f"{path}:{line}: {name}"


def test_no_file_runs_or_unpacks_what_it_reads():
    assert len(FILES) > 100
    assert [misdeed for path in FILES for misdeed in misdeeds(path)] == []


@pytest.mark.parametrize(
    "line",
    [
        "pickle.load(file)",
        "yaml.load(text, Loader)",
        "torch.load(path)",
        "torch.load(path, weights_only=False)",
        "np.load(path)",
        "np.load(path, allow_pickle=True)",
        "tar.extractall(folder)",
        "subprocess.run(command, shell=True)",
    ],
)
def test_the_check_sees_what_it_forbids(tmp_path, line):
    (tmp_path / "bad.py").write_text(line)

    assert len(list(misdeeds(tmp_path / "bad.py"))) == 1


def test_only_the_reader_of_cifar10_knows_pickle_and_it_takes_arrays_alone():
    # minority/ names pickle for torch.load's errors; tests/datasets/readers/test_small_readers.py feeds the
    # reader evil.
    derived = [
        path.relative_to(ROOT).as_posix() for path in FILES if "pickle.Unpickler" in path.read_text(encoding="utf-8")
    ]

    assert derived == ["datasets/readers/cifar10.py"]
