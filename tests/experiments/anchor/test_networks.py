"""CompressAI's models as anchors: real bytes, decoded from the file alone."""

import ast
import pickle
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

import experiments
from experiments.anchor import networks
from experiments.anchor.command import main
from experiments.anchor.networks import decode_file
from experiments.anchor.settings import load_preset, load_presets
from experiments.results.result import Result

pytestmark = pytest.mark.filterwarnings("ignore:.torch.jit.script:FutureWarning")

SIZES = {
    "bmshj2018-factorized": (8, 12),
    "bmshj2018-hyperprior": (8, 12),
    "mbt2018-mean": (8, 12),
    "mbt2018": (8, 12),
    "cheng2020-anchor": (8,),
    "cheng2020-attn": (8,),
    "ssf2020": (),
}
"""Channels N and M of small models; ssf2020 has one size only."""


class PassedOn:
    """Stands for the decoding process; what it is given and gives passes a pipe."""

    def generate(self, function, *arguments):
        return function(*pickle.loads(pickle.dumps(arguments)))


@pytest.fixture(autouse=True)
def same_process(monkeypatch):
    monkeypatch.setattr(networks, "decoding_process", lambda *_: PassedOn())


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    """Return a file of random weights that leave something to code, by model."""
    from compressai.registry import MODELS

    folder = tmp_path_factory.mktemp("weights")

    def of(model, seed=0):
        path = folder / f"{model}-{seed}.pth.tar"
        if not path.exists():
            torch.manual_seed(seed)
            network = MODELS[model](*SIZES[model])
            for name, parameter in network.named_parameters():
                if parameter.ndim == 4 and (name[:3] == "g_a" or "encoder" in name):
                    parameter.data *= 2 if model == "ssf2020" else 5
            torch.save({"state_dict": network.state_dict(), "epoch": 3}, path)
        return path

    return of


@pytest.fixture
def zoo(tmp_path, monkeypatch):
    """A folder where torch hub keeps its files."""
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "home"))
    folder = tmp_path / "home" / "hub" / "checkpoints"
    folder.mkdir(parents=True)
    return folder


@pytest.fixture
def coder(anchor, weights):
    """Make a coder of some weights at rate 1."""

    def make(model, intra_period=-1, **own):
        preset = next(n for n, p in PRESETS.items() if p.run["model"] == model)
        own = {"rates": {1.0: str(weights(model))}, "device": "cpu", **own}
        return anchor.coder_of("compressai", preset, "checkpoint", intra_period, **own)

    return make


PRESETS = load_presets("compressai")


@pytest.mark.parametrize("model", [model for model in SIZES if model != "ssf2020"])
def test_images_are_coded_frame_by_frame(anchor, coder, tmp_path, model):
    codes = anchor.scene("rgb", 37, 63, frames=2)
    cost, decoded = anchor.code(coder(model), tmp_path, 1.0, codes, "rgb")
    (path,) = tmp_path.iterdir()
    assert cost.nbytes == path.stat().st_size
    # Width and height, in a byte each.
    assert 8 * cost.nbytes == sum(cost.frame_bits) + 16
    assert min(cost.frame_bits) > 8 * 10
    assert [plane.shape for plane in decoded[1]] == [(37, 63)] * 3
    assert not torch.equal(decoded[0][0], decoded[1][0])
    assert set(cost.seconds) == {"encode", "decode"}


def strings_of(path):
    """Return how many strings each frame has."""
    data, place, counts = path.read_bytes(), 2, []
    while place < len(data):
        count, place = data[place], place + 1
        lengths = []
        for _ in range(count):
            length = shift = 0
            more = True
            while more:
                length |= (data[place] & 127) << shift
                more, shift, place = data[place] > 127, shift + 7, place + 1
            lengths.append(length)
        place += sum(lengths)
        counts.append(count)
    assert place == len(data)
    return counts


def test_ssf2020_refers_to_the_frame_before(anchor, coder, tmp_path):
    codes = anchor.scene(frames=3)
    cost, decoded = anchor.code(coder("ssf2020", 2), tmp_path, 1.0, codes)
    (path,) = tmp_path.iterdir()
    assert strings_of(path) == [2, 4, 2]
    assert 8 * cost.nbytes == sum(cost.frame_bits) + 16
    assert [p.shape for p in decoded[0]] == [(48, 64), (24, 32), (24, 32)]


def test_the_command_makes_a_curve_of_published_weights(
    anchor, weights, zoo, tmp_path, capsys
):
    clip = anchor.write_y4m(tmp_path / "clip.y4m", anchor.scene(frames=2))
    files = ("bmshj2018-factorized-prior-1-446d5c7f", "mbt2018-mean-2-e54a039d")
    files += ("mbt2018-mean-1-e522738d",)
    for seed, name in enumerate(files):
        state = torch.load(weights("mbt2018-mean", seed))["state_dict"]
        torch.save(state, zoo / f"{name}.pth.tar")
    output = tmp_path / "mean.json"
    command = ["--codec=compressai", "--preset=mbt2018-mean", f"--sequences={clip}"]
    command += ["--lpips=none", "--threads=1", "--device=cpu", f"--output={output}"]
    # A curve may grow.
    assert main([*command, "--quality", "2"]) == 0
    assert main([*command, "--quality", "1", "2"]) == 0
    result = Result.load(output)
    points = [point for _, point in result.all_points()]
    assert sorted(point.rate for point in points) == [1, 2]
    assert len({point.nbytes for point in points}) == 2
    assert result.codec["name"] == "mbt2018-mean" and result.codec["kind"] == "anchor"
    assert result.codec["trained_for"] == "mse"
    used = result.environment["weights"]
    assert {rate: Path(own["file"]).name for rate, own in used.items()} == {
        "1.0": f"{files[2]}.pth.tar",
        "2.0": f"{files[1]}.pth.tar",
    }
    # They have the names of published files, and are not those.
    assert [own["published"] for own in used.values()] == [False, False]
    assert "is not the file that CompressAI publishes" in capsys.readouterr().err
    # Nor does another file pass for one that was measured.
    (zoo / f"{files[2]}.pth.tar").write_bytes(
        (zoo / f"{files[0]}.pth.tar").read_bytes()
    )
    assert main([*command, "--quality", "1", "2"]) == 2
    assert "rate 1 was measured with weights" in capsys.readouterr().err


@pytest.mark.parametrize("name", PRESETS)
def test_a_missing_file_is_named_with_its_folder(anchor, zoo, name):
    preset = PRESETS[name]
    best = int(preset.knobs["quality"].high)
    with pytest.raises(ValueError, match=r"put it there, set TORCH_HOME") as told:
        anchor.coder_of("compressai", name, "quality", rates={best: None})
    line = str(told.value)
    assert line.startswith(f"--quality {best} of {name} is in ")
    file = line.split()[6].removesuffix(",")
    assert file.endswith(".pth.tar") and f"-{best}-" in file
    assert ("ms-ssim" in file) is (preset.run["metric"] == "ms-ssim")
    assert f"not in {zoo}: get https://" in line and f"/{file} and put it" in line


def test_files_of_other_models_or_none_are_refused(anchor, coder, weights, tmp_path):
    noise = tmp_path / "noise.pth"
    noise.write_bytes(b"noise")
    changed = tmp_path / "changed.pth"
    data = bytearray(weights("mbt2018-mean").read_bytes())
    data[len(data) // 2] ^= 1
    changed.write_bytes(data)
    for path, message in (
        (noise, r"noise.pth cannot be read as weights: it is not a checkpoint"),
        (changed, r"changed.pth cannot be read as weights: it .*has changed since"),
        (weights("cheng2020-anchor"), r"anchor-0.pth.tar has no weights of mbt2018-me"),
    ):
        own = coder("mbt2018-mean", rates={1.0: str(path)})
        (tmp_path / "work").mkdir(exist_ok=True)
        with pytest.raises(ValueError, match=message) as told:
            anchor.code(own, tmp_path / "work", 1.0)
        assert "\n" not in str(told.value)
    with pytest.raises(
        ValueError, match=r"--checkpoint 1: there is no file .*none.pth"
    ):
        coder("mbt2018-mean", rates={1.0: "none.pth"})


def test_a_decoder_that_gives_other_frames_is_refused(
    anchor, coder, tmp_path, monkeypatch
):
    def wrong(*arguments):
        _, seconds, memory = yield from decode_file(*arguments)
        return "0" * 64, seconds, memory

    monkeypatch.setattr(networks, "decode_file", wrong)
    monkeypatch.setattr(
        networks,
        "decoding_process",
        lambda *_: SimpleNamespace(generate=lambda function, *own: function(*own)),
    )
    with pytest.raises(ValueError, match=r"decoded other frames than the encoder"):
        anchor.code(coder("bmshj2018-factorized"), tmp_path, 1.0)


def test_a_file_that_was_cut_is_refused(anchor, coder, tmp_path, monkeypatch):
    own = coder("bmshj2018-factorized")
    encode = own.encode

    def cut(task):
        cost = encode(task)
        path = task.folder / "stream.bin"
        path.write_bytes(path.read_bytes()[:-3])
        return cost

    monkeypatch.setattr(own, "encode", cut)
    with pytest.raises(ValueError, match=r"stream.bin ends within a frame"):
        anchor.code(own, tmp_path, 1.0)


def test_serial_models_are_said_to_be_slow(coder):
    assert not coder("mbt2018-mean").remarks()
    for model in ("mbt2018", "cheng2020-anchor", "cheng2020-attn"):
        (remark,) = coder(model).remarks()
        assert "one position after another" in remark
    slow = {name for name, preset in PRESETS.items() if "slow" in preset.note}
    assert slow == {name for name, preset in PRESETS.items() if preset.run["serial"]}


def test_every_model_of_the_presets_has_its_qualities():
    from compressai.zoo import image, video

    files = {**image.model_urls, **video.model_urls}
    for preset in PRESETS.values():
        knob = preset.knobs["quality"]
        known = files[preset.run["model"]][preset.run["metric"]]
        assert sorted(known) == list(range(knob.low, knob.high + 1))
    assert load_preset("compressai", None).name == "ssf2020"


def test_compressai_is_imported_only_where_it_is_used():
    # It takes seconds, and every other command would wait for it.
    for path in Path(experiments.__file__).parent.rglob("*.py"):
        for node in ast.parse(path.read_text()).body:
            if isinstance(node, ast.Import | ast.ImportFrom):
                names = [
                    getattr(node, "module", None) or "",
                    *(a.name for a in node.names),
                ]
                assert not any(n.split(".")[0] == "compressai" for n in names), path
