import pytest
import torch
from safetensors.torch import save_file

from minority.weights import WeightsError, read_state_dict, read_tensors

TENSORS = {"in.weight": torch.arange(6.0).view(2, 3), "in.bias": torch.zeros(2), "mid.norm.weight": torch.ones(2)}


def named(prefix):
    return {f"{prefix}{name}": value for name, value in TENSORS.items()}


def saved(path, content):
    torch.save(content, path)
    return path


def read(path, **options):
    return read_state_dict([path], landmark="in.weight", remedy="say which", **options)


def is_whole(state):
    return state.tensors.keys() == TENSORS.keys() and all(torch.equal(state.tensors[n], TENSORS[n]) for n in TENSORS)


@pytest.mark.parametrize(
    "prefix",
    [
        "",
        "module.",
        "_orig_mod.",
        "model.",
        "ema.",
        "diffusion_model.",
        "module._orig_mod.",
        "_orig_mod.module.",
        "model.diffusion_model.",
        "module.module.",
    ],
)
@pytest.mark.parametrize("ending", [".pt", ".safetensors"])
def test_what_stands_before_all_names_is_taken_off(tmp_path, prefix, ending):
    path = tmp_path / f"model{ending}"
    if ending == ".pt":
        torch.save(named(prefix), path)
    else:
        save_file(named(prefix), path)

    state = read(path)

    assert is_whole(state)
    assert (state.prefix, state.left_out) == (prefix, 0)


@pytest.mark.parametrize(
    ("content", "prefix", "left_out"),
    [
        ({"state_dict": TENSORS, "epoch": 3}, "state_dict.", 0),
        ({"model": named("module."), "step": torch.tensor(3)}, "model.module.", 1),
        ({"ema": TENSORS, "args": {"lr": 1e-4}, "optimizer": {"state": {0: {"exp_avg": torch.ones(3)}}}}, "ema.", 1),
        ({"state_dict": named("model.diffusion_model.") | {"first_stage_model.in_conv": torch.ones(1)}}, None, 1),
    ],
)
def test_one_model_in_a_training_state_is_read_and_the_rest_is_counted(tmp_path, content, prefix, left_out):
    state = read(saved(tmp_path / "state.pt", content))

    assert is_whole(state)
    assert state.prefix == (prefix or "state_dict.model.diffusion_model.")
    assert state.left_out == left_out


def test_parts_that_were_compiled_one_by_one_lose_the_mark_in_the_middle_of_a_name(tmp_path):
    path = saved(tmp_path / "a.pt", {name.replace("mid.", "mid._orig_mod."): value for name, value in TENSORS.items()})

    assert is_whole(read(path))


@pytest.mark.parametrize(
    "content",
    [{"model": TENSORS, "ema": TENSORS}, named("model.") | named("ema."), {"model": TENSORS} | named("ema.")],
)
def test_two_models_are_named_and_one_can_be_picked(tmp_path, content):
    path = saved(tmp_path / "two.pt", content)

    with pytest.raises(WeightsError, match=r"two\.pt holds 2 models: ema, model; say which\.$"):
        read(path)
    with pytest.raises(WeightsError, match=r"holds no model 'best'; there are ema, model"):
        read(path, pick="best")

    assert is_whole(read(path, pick="ema"))
    assert read(path, pick="model").left_out == len(TENSORS)


def test_a_compiled_and_a_plain_copy_of_one_tensor_are_not_mixed(tmp_path):
    path = saved(tmp_path / "both.pt", TENSORS | named("_orig_mod."))

    with pytest.raises(WeightsError, match=r"holds in\.weight and _orig_mod\.in\.weight, two copies of one tensor"):
        read(path)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16, torch.float64])
def test_a_number_that_is_none_is_told_by_its_tensor(tmp_path, value, dtype):
    broken = TENSORS | {"mid.norm.weight": torch.tensor([1.0, value], dtype=dtype)}
    path = saved(tmp_path / "broken.pt", broken)

    for reader in (read, read_tensors):
        with pytest.raises(WeightsError, match=r"broken\.pt holds NaN or infinity in 1 of 3 tensors \(mid\.norm\.wei"):
            reader(path)


def test_a_broken_model_beside_the_one_that_is_read_does_not_matter(tmp_path):
    broken = {name: value * float("nan") for name, value in TENSORS.items()}

    assert is_whole(read(saved(tmp_path / "s.pt", {"model": broken, "ema": TENSORS}), pick="ema"))


@pytest.mark.parametrize("ending", [".pt", ".bin", ".safetensors", ".pth"])
@pytest.mark.parametrize("server", ["git-lfs.github.com", "hawser.github.com"])
def test_a_pointer_is_told_with_the_remedy(tmp_path, ending, server):
    path = tmp_path / f"model{ending}"
    path.write_text(f"version https://{server}/spec/v1\noid sha256:{'a' * 64}\nsize 99\n")

    with pytest.raises(WeightsError, match=rf"model{ending} is a Git LFS pointer, .*; run git lfs pull"):
        read(path)


@pytest.mark.parametrize("nested", [False, True])
def test_a_few_bytes_that_stand_for_terabytes_are_refused_before_they_are_looked_at(tmp_path, nested):
    huge = TENSORS | {"in.weight": torch.zeros(1).expand(10**6, 10**6)}
    path = saved(tmp_path / "bomb.pt", {"ema": huge} if nested else huge)

    with pytest.raises(WeightsError, match=r"bomb\.pt has 0\.\d+ MB and stands for tensors of 4e\+06 MB"):
        read(path)
    if not nested:
        with pytest.raises(WeightsError, match=r"stands for tensors of 4e\+06 MB"):
            read_tensors(path)


def test_tied_tensors_are_no_bomb(tmp_path):
    tied = torch.randn(1000)
    path = saved(tmp_path / "tied.pt", TENSORS | {f"copy{i}.weight": tied for i in range(3)})

    assert read(path).tensors.keys() > TENSORS.keys()
