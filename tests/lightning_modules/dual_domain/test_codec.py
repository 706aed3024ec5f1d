"""What a DualDomain codec can be built with and set to, and how large it is."""

import pytest
import torch

from lightning_modules import DualDomain, load_codec
from lightning_modules.dual_domain.codec import DualDomainCodec
from lightning_modules.dual_domain.packets import read_head


def test_float32_is_a_choice_that_each_packet_records(dual_domain, codec):
    clip = dual_domain.scene(2)
    fast = dual_domain.make(numeric="float32")
    packets = list(fast.compress(clip, 0.5, reconstruct=True))
    assert all(read_head(p)[0].numeric == "float32" for p in packets)
    decoded = torch.stack(list(codec.decompress(packets, *dual_domain.SIZE)))
    assert torch.equal(decoded, torch.cat([p.x_hat for p in packets]))
    codec.configure(numeric="float32", mode_decision="inter")
    again = list(codec.compress(clip, 0.5))
    codec.configure(numeric="float64", mode_decision="real")
    assert [read_head(p)[0].numeric for p in again] == ["float32"] * 2


def test_weights_that_changed_are_those_that_code(dual_domain):
    clip = dual_domain.scene(2)
    codec = dual_domain.make()
    before = [p.payload for p in codec.compress(clip, 0.5)]
    codec.network.context.start.data += 1.0
    assert [p.payload for p in codec.compress(clip, 0.5)] != before


def test_a_nan_in_the_weights_is_named_and_not_coded(dual_domain):
    codec = dual_domain.make()
    codec.network.encoder[-1].bias.data[0] = float("nan")
    with pytest.raises(ValueError, match="not finite"):
        list(codec.compress(dual_domain.scene(1), 0.5))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"size": "huge"}, "huge"),
        ({"references": 4}, "references is 4"),
        ({"step": "moes"}, "moes"),
        ({"step_offset": "mean"}, "mean"),
        ({"experts": 0}, "experts is 0"),
        ({"top_k": 5}, "top_k is 5, and there are 4 experts"),
        ({"top_k": 2, "experts": 1}, "there are 1 experts"),
        ({"ltmr": False}, "set references to 1"),
        ({"quantiser": "mean_centred"}, "mode_decision to inter"),
        ({"transform": "separate", "pixel_alignment": False}, "warped frame"),
        ({"numeric": "float16"}, "float16"),
        ({"mode_decision": "best"}, "best"),
    ],
)
def test_arguments_that_make_no_codec_are_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        DualDomainCodec(**{"size": "tiny", **arguments})


@pytest.mark.parametrize(
    ("size", "parameters"),
    [
        ("base", 15.6e6),
        ("small", 7.7e6),
        ("mini", 2.8e6),
        ("small_128", 7.2e6),
        ("tiny", 0.9e6),
    ],
)
def test_sizes_have_the_parameters_that_were_planned(size, parameters):
    with torch.device("meta"):
        codec = DualDomainCodec(size)
    found = sum(p.numel() for p in codec.parameters())
    assert found == pytest.approx(parameters, rel=0.05)


def test_a_checkpoint_of_the_former_small_is_its_network_under_its_name(
    save_checkpoint, tmp_path
):
    module = DualDomain(size="small_128")
    path = save_checkpoint(module, tmp_path / "last.ckpt")
    checkpoint = torch.load(path, weights_only=True)
    checkpoint["codec"]["architecture"]["size"] = "small"
    checkpoint["hyper_parameters"] = {"size": "small"}
    checkpoint["pytorch-lightning_version"] = "2.6.4"
    torch.save(checkpoint, path)
    for codec in load_codec(path), DualDomain.load_from_checkpoint(path).codec:
        assert codec.architecture["size"] == "small"
        assert codec.latents.levels == {"symbols": 128}
        assert len(codec.passes(32, 32)["decode"]()) == 2
        torch.testing.assert_close(
            dict(codec.state_dict()), dict(module.codec.state_dict())
        )
