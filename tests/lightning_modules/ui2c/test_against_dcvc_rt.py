import pytest
import torch

from lightning_modules.alternating import alternating
from lightning_modules.ui2c.against_dcvc_rt import main, weight_for

THEIRS = {
    "feature_adaptor_i.dc.0.weight": "adaptor_i.spatial.0.weight",
    "feature_adaptor_p.bias": "adaptor_p.bias",
    "feature_extractor.conv2.3.ffn.2.bias": "extractor_2.3.reduce.bias",
    "encoder.conv1.weight": "embed.weight",
    "encoder.conv2.0.adaptor.weight": "encoder.0.adaptor.weight",
    "encoder.conv3.dc.3.bias": "encoder.2.spatial.3.bias",
    "encoder.down.weight": "encoder_down.weight",
    "hyper_encoder.conv.0.ffn.0.weight": "hyper_encoder.0.expand.0.weight",
    "hyper_encoder.conv.2.down.weight": "hyper_encoder.2.0.weight",
    "hyper_encoder.conv.2.conv.dc.2.weight": "hyper_encoder.2.1.spatial.2.weight",
    "hyper_decoder.conv.1.up.conv.0.bias": "hyper_decoder.1.0.0.bias",
    "hyper_decoder.conv.2.dc.0.bias": "hyper_decoder.2.spatial.0.bias",
    "temporal_prior_encoder.conv.dc.0.weight": "temporal_prior.1.spatial.0.weight",
    "y_prior_fusion.conv.3.weight": "fusion.1.weight",
    "y_spatial_prior.conv.1.ffn.0.bias": "spatial_prior.0.1.expand.0.bias",
    "y_spatial_prior.conv.2.bias": "spatial_prior.1.bias",
    "decoder.up.conv.0.weight": "decoder_up.0.weight",
    "decoder.conv1.2.dc.2.bias": "decoder.0.2.spatial.2.bias",
    "decoder.conv2.weight": "decoder.1.weight",
    "recon_generation_net.conv.3.ffn.2.weight": "recon.3.reduce.weight",
    "recon_generation_net.head.bias": "recon_out.bias",
}


@pytest.mark.parametrize(("theirs", "ours"), THEIRS.items())
def test_each_of_their_layers_takes_ours(theirs, ours):
    weight = torch.zeros(3)
    assert weight_for(theirs, {ours: weight}) is weight


def test_tables_take_theirs_shape():
    ours = {"z_prior.a": torch.rand(3, 72, 8), "q_recon": torch.rand(1, 72, 5)}
    found = weight_for("bit_estimator_z.f2.a", ours)
    assert torch.equal(found[..., 0, 0], ours["z_prior.a"][1])
    assert weight_for("q_recon", ours).shape == (72, 5, 1, 1)


def test_what_is_no_checkout_is_said_so(tmp_path, capsys):
    assert main([str(tmp_path), "--threads", "1"]) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ") and "DCVC-family/DCVC-RT" in error


@pytest.mark.parametrize("size", ["256", "250x256", "0x64", "64x-16"])
def test_a_size_that_cannot_be_is_refused(size, tmp_path, capsys):
    with pytest.raises(SystemExit):
        main([str(tmp_path), "--sizes", size])
    assert "such as 832x480" in capsys.readouterr().err


def test_both_run_in_turns():
    order = []
    first, second, ratio = alternating(
        lambda: order.append("ours"), lambda: order.append("theirs"), 2
    )
    assert order == ["ours", "theirs"] * 3
    assert first >= 0 and second >= 0 and ratio > 0
