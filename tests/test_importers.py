"""Checkpoints of other code-bases: what an engine made of one makes is what its own code makes."""

from __future__ import annotations

import collections
import contextlib
import os
import pickle
import re
import sys
import types
from pathlib import Path
from typing import Any, ClassVar

import foreign_networks as foreign
import pytest
import torch
from gantrt.errors import EngineCorrupt, EngineMismatch, GantrtError, UnsupportedInput, UsageError
from gantrt_training.checkpoint import load_run
from gantrt_training.comparison import synthetic
from gantrt_training.export import Request as ExportRequest
from gantrt_training.export import export
from gantrt_training.foreign import read_networks
from gantrt_training.importing import Request, import_checkpoint
from gantrt_training.layout import list_layouts
from gantrt_training.recipe import make_recipe
from gantrt_training.sizes import HeightWidth
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.nn.backends.thnn import _get_thnn_function_backend

onnxruntime = pytest.importorskip("onnxruntime")
pytestmark = pytest.mark.filterwarnings("ignore:Couldn't retrieve source code")  # as torch warns when it saves a class


def as_batch_of_one(net: nn.Module) -> nn.Module:
    """BatchNorms in train mode, all else in eval mode: how pix2pix is tested."""
    for layer in net.eval().modules():
        layer.train(isinstance(layer, nn.BatchNorm2d))
    return net


def through_bgr(net: nn.Module) -> Any:
    """DiscoGAN's network, on RGB in [-1, 1]."""
    return lambda x: net((x.flip(1) + 1) / 2).flip(1) * 2 - 1


def engine(run: Path, out: Path, x: Tensor, **options: Any) -> Tensor:
    """What ONNX Runtime makes of x with the engine that is exported from `run`."""
    export(run, out, ExportRequest(size=tuple(x.shape[2:]), samples=1, **options))
    session = onnxruntime.InferenceSession(out, providers=["CPUExecutionProvider"])
    return torch.from_numpy(session.run(None, {"input": x.numpy()})[0])


GENERATORS: dict[str, tuple[nn.Module, tuple[int, int], dict[str, Any]]] = {
    "resnet": (foreign.ResnetGenerator(), (16, 20), {"norm": "instance", "n_blocks": 2, "dropout": 0.0, "ngf": 4}),
    "resnet with BatchNorm": (foreign.ResnetGenerator(norm="batch", blocks=3), (16, 20), {"norm": "batch"}),
    "resnet with dropout": (foreign.ResnetGenerator(dropout=True, inputs=1, outputs=3), (16, 20), {"dropout": 0.5}),
    "resnet with both": (foreign.ResnetGenerator(norm="batch", dropout=True), (16, 20), {"dropout": 0.5}),
    "CUT": (foreign.ResnetGenerator(blur_down=True, blur_up=True), (16, 20), {"antialias": True}),
    "CUT, down only": (foreign.ResnetGenerator(blur_down=True), (16, 20), {"upsample": "transpose"}),
    "unet": (foreign.UnetGenerator(6, norm="instance"), (64, 128), {"downs": 6, "norm": "instance", "size": 64}),
    "unet with BatchNorm": (foreign.UnetGenerator(5, inputs=1), (32, 64), {"downs": 5, "norm": "batch"}),
    "ugatit": (foreign.UGATITGenerator(), (16, 16), {"light": False, "size": 16, "n_blocks": 2, "ngf": 4}),
    "ugatit light": (foreign.UGATITGenerator(light=True, blocks=3), (16, 20), {"light": True, "n_blocks": 3}),
    "discogan": (foreign.Generator(), (64, 64), {"bottleneck": 0, "ngf": 4, "size": 64}),
    "discogan, narrow": (foreign.Generator(narrow=10), (64, 64), {"bottleneck": 10}),
}


@pytest.mark.parametrize("case", GENERATORS)
def test_engine_makes_what_the_original_code_makes(case: str, tmp_path: Path) -> None:
    net, size, expected = GENERATORS[case]
    foreign.scramble(net, gain=2.0 if "discogan" in case else 1.0)
    torch.save(net.state_dict(), tmp_path / "latest_net_G.pth")
    imported = import_checkpoint([tmp_path / "latest_net_G.pth"], tmp_path / "run")
    assert expected.items() <= imported.description.config.items()
    if "discogan" in case:
        assert imported.description.norm_mode == "running"
        original = through_bgr(net.eval())
    else:
        original = as_batch_of_one(net)
    x = synthetic(imported.description.config["channels_a"])(1, *size)
    with torch.no_grad():
        expected_picture = original(x)
    made = engine(tmp_path / "run", tmp_path / "engine.onnx", x)
    assert expected_picture.std() > 0.05  # no constant picture
    torch.testing.assert_close(made, expected_picture, rtol=0, atol=1e-5)


def test_norm_mode_is_recorded_and_obeyed(tmp_path: Path) -> None:
    net = foreign.scramble(foreign.ResnetGenerator(norm="batch"))
    torch.save(net.state_dict(), tmp_path / "latest_net_G.pth")
    import_checkpoint([tmp_path / "latest_net_G.pth"], tmp_path / "run", Request(norm_mode="running"))
    x = synthetic(3)(1, 16, 16)
    with torch.no_grad():
        expected = net.eval()(x)
    torch.testing.assert_close(engine(tmp_path / "run", tmp_path / "e.onnx", x), expected, rtol=0, atol=1e-5)


def ugatit_checkpoint(**options: Any) -> dict[str, nn.Module]:
    nets = {name: foreign.UGATITGenerator(**options) for name in ("genA2B", "genB2A")}
    nets |= {"disGA": foreign.UGATITDiscriminator(7), "disGB": foreign.UGATITDiscriminator(7)}
    nets |= {"disLA": foreign.UGATITDiscriminator(5), "disLB": foreign.UGATITDiscriminator(5)}
    for seed, net in enumerate(nets.values()):
        foreign.scramble(net, seed)
    return nets


@pytest.fixture
def ugatit_file(tmp_path: Path) -> Path:
    torch.save({name: net.state_dict() for name, net in ugatit_checkpoint(light=True).items()}, tmp_path / "u.pt")
    return tmp_path / "u.pt"


def test_ugatit_file_becomes_all_six_networks(ugatit_file: Path, tmp_path: Path) -> None:
    imported = import_checkpoint([ugatit_file], tmp_path / "run")
    loaded, nets = load_run(tmp_path / "run"), ugatit_checkpoint(light=True)
    assert set(imported.description.networks) == {"g_ab", "g_ba", "d_a_global", "d_b_global", "d_a_local", "d_b_local"}
    x = synthetic(3)(1, 16, 16)
    for ours, theirs in (("g_ab", "genA2B"), ("g_ba", "genB2A")):
        torch.testing.assert_close(loaded.nets[ours](x)[0], nets[theirs](x), rtol=0, atol=1e-5)
    x = synthetic(3)(1, 128, 128)
    for ours, theirs in (("d_a_global", "disGA"), ("d_b_local", "disLB")):
        for mine, his in zip(loaded.nets[ours](x), nets[theirs](x), strict=False):
            torch.testing.assert_close(mine, his, rtol=1e-5, atol=1e-5)


def test_network_picks_one_of_several(ugatit_file: Path, tmp_path: Path) -> None:
    imported = import_checkpoint([ugatit_file], tmp_path / "run", Request(network="genB2A"))
    assert imported.description.networks == ("g_ba",)
    with pytest.raises(UsageError, match="has no network 'genC'; it has genA2B, genB2A"):
        import_checkpoint([ugatit_file], tmp_path / "other", Request(network="genC"))
    assert not (tmp_path / "other").exists()


def test_spectral_norm_as_a_parametrization_is_read(tmp_path: Path) -> None:
    nets = ugatit_checkpoint(light=True)
    state = nets["disLA"].state_dict()
    new = {"weight_orig": "parametrizations.weight.original", "weight_u": "parametrizations.weight.0._u"}
    new["weight_v"] = "parametrizations.weight.0._v"
    renamed = {
        ".".join([*key.split(".")[:-1], new.get(key.split(".")[-1], key.split(".")[-1])]): t for key, t in state.items()
    }
    torch.save({"genA2B": nets["genA2B"].state_dict(), "disLA": renamed}, tmp_path / "u.pt")
    import_checkpoint([tmp_path / "u.pt"], tmp_path / "run")
    x = synthetic(3)(1, 64, 64)
    torch.testing.assert_close(load_run(tmp_path / "run").nets["d_a_local"](x)[0], nets["disLA"](x)[0])


@pytest.mark.parametrize("norm", ["instance", "batch"])
def test_files_of_one_training_become_one_run(norm: str, tmp_path: Path) -> None:
    nets: dict[str, nn.Module] = {name: foreign.ResnetGenerator(norm=norm) for name in ("G_A", "G_B")}
    nets |= {name: foreign.NLayerDiscriminator(norm=norm, layers=2) for name in ("D_A", "D_B")}
    files = []
    for seed, (name, net) in enumerate(nets.items()):
        foreign.scramble(net, seed)
        files.append(tmp_path / f"latest_net_{name}.pth")
        torch.save(net.state_dict(), files[-1])
    imported = import_checkpoint(files, tmp_path / "run")
    loaded = load_run(tmp_path / "run")
    assert not imported.left_out
    assert loaded.config.d_layers == 2
    x = synthetic(3)(1, 32, 32)
    for ours, theirs in (("g_ab", "G_A"), ("g_ba", "G_B"), ("d_b", "D_A"), ("d_a", "D_B")):  # D_A judges B
        torch.testing.assert_close(loaded.nets[ours](x), nets[theirs](x), rtol=0, atol=1e-5)


def test_pix2pix_discriminator_of_single_pixels_is_taken(tmp_path: Path) -> None:
    judge = foreign.scramble(foreign.PixelDiscriminator(6, norm="batch"))
    torch.save(foreign.UnetGenerator(5).state_dict(), tmp_path / "latest_net_G.pth")
    torch.save(judge.state_dict(), tmp_path / "latest_net_D.pth")
    import_checkpoint([tmp_path / "latest_net_G.pth", tmp_path / "latest_net_D.pth"], tmp_path / "run")
    x = synthetic(6)(1, 8, 8)
    torch.testing.assert_close(load_run(tmp_path / "run").nets["d_b"](x), judge(x))


def test_discriminator_that_does_not_fit_is_named_and_left_out(tmp_path: Path) -> None:
    torch.save(foreign.UnetGenerator(5).state_dict(), tmp_path / "latest_net_G.pth")
    torch.save(foreign.NLayerDiscriminator(4, norm="batch").state_dict(), tmp_path / "latest_net_D.pth")
    imported = import_checkpoint([tmp_path / "latest_net_G.pth", tmp_path / "latest_net_D.pth"], tmp_path / "run")
    assert imported.description.networks == ("g_ab",)
    assert imported.left_out == ("latest_net_D",)


def test_discogan_discriminator_sees_bgr(tmp_path: Path) -> None:
    generator, judge = foreign.scramble(foreign.Generator()), foreign.scramble(foreign.Discriminator())
    torch.save({"generator_A": generator.state_dict(), "discriminator_A": judge.state_dict()}, tmp_path / "d.pt")
    imported = import_checkpoint([tmp_path / "d.pt"], tmp_path / "run")
    assert set(imported.description.networks) == {"g_ba", "d_a"}  # generator_A makes pictures of A
    x = synthetic(3)(2, 64, 64)
    mine = load_run(tmp_path / "run").nets["d_a"](x)[0]
    torch.testing.assert_close(mine, judge((x.flip(1) + 1) / 2))


@pytest.fixture
def discogan_module(monkeypatch: pytest.MonkeyPatch) -> type[nn.Module]:
    """The generator's class in a module called `model`, as its authors have it; gone when the file is read."""
    module = types.ModuleType("model")
    cls = type("Generator", (foreign.Generator,), {"__module__": "model"})
    module.Generator = cls  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "model", module)
    return cls


@pytest.mark.parametrize("zipped", [True, False])
def test_pickled_module_is_read_without_its_class(zipped, discogan_module, tmp_path, monkeypatch) -> None:
    net = foreign.scramble(discogan_module())
    torch.save(net, tmp_path / "model_gen_B-3.0", _use_new_zipfile_serialization=zipped)
    monkeypatch.delitem(sys.modules, "model")
    read = read_networks(tmp_path / "model_gen_B-3.0")
    assert read.keys() == {""}
    assert read[""].keys() == net.state_dict().keys()
    imported = import_checkpoint([tmp_path / "model_gen_B-3.0"], tmp_path / "run")
    assert imported.description.networks == ("g_ab",)
    x = synthetic(3)(1, 64, 64)
    torch.testing.assert_close(load_run(tmp_path / "run").nets["g_ab"](x), through_bgr(net)(x), rtol=0, atol=1e-5)


class _Backend:
    def __reduce__(self) -> Any:
        return _get_thnn_function_backend, ()


class _Python2Pickler(pickle._Pickler):  # type: ignore[name-defined]
    """Writes text as Python 2 wrote its str, and parameters as the first PyTorch did: as a call."""

    dispatch: ClassVar[dict[type, Any]] = dict(pickle._Pickler.dispatch)  # type: ignore[attr-defined]

    def save_str(self, text: str) -> None:
        raw = text.encode("latin1")
        self.write(b"U" + bytes([len(raw)]) + raw if len(raw) < 256 else b"T" + len(raw).to_bytes(4, "little") + raw)
        self.memoize(text)

    def save_parameter(self, parameter: nn.Parameter) -> None:
        self.save_reduce(nn.Parameter, (parameter.data,), (True, False, collections.OrderedDict()), obj=parameter)

    dispatch[str] = save_str
    dispatch[nn.Parameter] = save_parameter


def _dump(value: Any, file: Any, protocol: int = 2) -> None:
    _Python2Pickler(file, protocol).dump(value)


_PYTHON_2 = types.SimpleNamespace(__name__="python2", Pickler=_Python2Pickler, dump=_dump)


def test_python_2_names_and_bytes_are_read(tmp_path: Path, discogan_module, monkeypatch) -> None:
    """The first PyTorch's modules: str as bytes, __builtin__, a backend, no num_batches_tracked, parameters by call."""
    net = foreign.scramble(discogan_module())
    for layer in net.modules():
        layer._buffers.pop("num_batches_tracked", None)
        layer._backend = _Backend()

    path = tmp_path / "model_gen_A-1.0"
    torch.save(
        net,
        path,
        pickle_module=_PYTHON_2,
        _use_new_zipfile_serialization=False,
    )
    content = path.read_bytes()
    assert b"_get_thnn_function_backend" in content
    monkeypatch.delitem(sys.modules, "model")
    assert import_checkpoint([path], tmp_path / "run").description.networks == ("g_ba",)
    x = synthetic(3)(1, 64, 64)
    torch.testing.assert_close(load_run(tmp_path / "run").nets["g_ba"](x), through_bgr(net)(x), rtol=0, atol=1e-5)


@pytest.mark.parametrize("prefix", ["module.", "_orig_mod.", "module._orig_mod.", "netG."])
def test_wrappers_names_do_not_matter(prefix: str, tmp_path: Path) -> None:
    net = foreign.scramble(foreign.ResnetGenerator())
    torch.save({prefix + key: tensor for key, tensor in net.state_dict().items()}, tmp_path / "latest_net_G_B.pth")
    assert import_checkpoint([tmp_path / "latest_net_G_B.pth"], tmp_path / "run").description.networks == (
        ("g_ba",) if prefix != "netG." else ("g_ab",)
    )


@pytest.mark.parametrize("how", ["legacy", "safetensors", "half", "state_dict", "with optimiser"])
def test_any_way_to_save_tensors_is_read(how: str, tmp_path: Path) -> None:
    net = foreign.scramble(foreign.ResnetGenerator())
    path, state = tmp_path / "latest_net_G.pth", net.state_dict()
    if how == "safetensors":
        save_file(state, path)
    elif how == "half":
        torch.save({key: tensor.half() for key, tensor in state.items()}, path)
    elif how == "state_dict":
        torch.save({"epoch": 3, "state_dict": state, "args": {"lr": 1e-4}}, path)
    elif how == "with optimiser":
        adam = torch.optim.Adam(net.parameters())
        net(torch.zeros(1, 3, 16, 16)).sum().backward()
        adam.step()
        state = {key: tensor.clone() for key, tensor in net.state_dict().items()}
        torch.save({"netG": state, "optimizer": adam.state_dict(), "losses": torch.ones(3)}, path)
    else:
        torch.save(state, path, _use_new_zipfile_serialization=False)
    import_checkpoint([path], tmp_path / "run")
    loaded = load_run(tmp_path / "run").nets["g_ab"].state_dict()
    torch.testing.assert_close(loaded["stem.conv.weight"], state["model.1.weight"], atol=1e-3, rtol=0)
    assert all(tensor.dtype == torch.float32 for tensor in loaded.values())


def test_old_instance_norms_statistics_are_dropped(tmp_path: Path, caplog) -> None:
    state = foreign.scramble(foreign.ResnetGenerator(), 5).state_dict()
    plain = dict(state)
    for layer in ("model.2", "model.5", "model.10.conv_block.2"):
        state[f"{layer}.running_mean"], state[f"{layer}.running_var"] = torch.ones(4), torch.ones(4)
        state[f"{layer}.num_batches_tracked"] = torch.tensor(9)
    torch.save(state, tmp_path / "old_net_G.pth")
    torch.save(plain, tmp_path / "new_net_G.pth")
    with caplog.at_level("DEBUG", logger="gantrt"):
        import_checkpoint([tmp_path / "old_net_G.pth"], tmp_path / "old")
    import_checkpoint([tmp_path / "new_net_G.pth"], tmp_path / "new")
    assert "left out 9 statistics of norms that do not use them" in caplog.text
    old, new = (load_run(tmp_path / run).nets.state_dict() for run in ("old", "new"))
    assert old.keys() == new.keys()
    with pytest.raises(UsageError, match="has no BatchNorm"):
        import_checkpoint([tmp_path / "old_net_G.pth"], tmp_path / "third", Request(norm_mode="running"))


def test_our_own_networks_state_dicts_are_recognised(tmp_path: Path) -> None:
    from gantrt_training.family import load_family

    for name, keys in {
        "cyclegan": {"ngf": 4, "n_blocks": 1, "n_downs": 3, "norm": "batch", "upsample": "resize", "ndf": 4},
        "pix2pix": {"ngf": 4, "size": 32, "ndf": 4, "norm": "instance"},
        "discogan": {"ngf": 4, "size": 32, "ndf": 4, "bottleneck": 10, "unit_range": False},
        "ugatit": {"ngf": 4, "size": 32, "ndf": 4, "n_blocks": 2},
        "pix2pix ": {"ngf": 4, "size": 32, "ndf": 4, "upsample": "resize"},
        "discogan ": {"ngf": 4, "size": 32, "ndf": 4, "bottleneck": 0, "upsample": "resize"},
    }.items():
        family = load_family(name.strip())
        config = family.Config(**keys)
        nets = family.build(config)
        torch.save(nets.state_dict(), tmp_path / f"{name}.pt")
        imported = import_checkpoint([tmp_path / f"{name}.pt"], tmp_path / name, Request(family=family.name))
        assert set(imported.description.networks) == set(nets)
        loaded = load_run(tmp_path / name)
        for key, value in keys.items():
            assert getattr(loaded.config, key) == value
        state = nets.state_dict()
        assert all(torch.equal(tensor, state[key]) for key, tensor in loaded.nets.state_dict().items())


def test_sizes_that_no_tensor_tells_may_be_rectangles(tmp_path: Path) -> None:
    from gantrt_training.family import load_family

    torch.save(foreign.ResnetGenerator().state_dict(), tmp_path / "latest_net_G_A.pth")
    imported = import_checkpoint([tmp_path / "latest_net_G_A.pth"], tmp_path / "run", Request(size=(32, 64)))
    assert imported.description.config["size"] == (32, 64)
    family = load_family("ugatit")  # the full one, which sees every pixel of 32x48
    config = family.Config(ngf=4, ndf=4, n_blocks=1, size=HeightWidth(32, 48))
    torch.save(family.build(config)["g_ab"].state_dict(), tmp_path / "wide.pt")
    import_checkpoint([tmp_path / "wide.pt"], tmp_path / "wide", Request(size=(32, 48)))
    assert load_run(tmp_path / "wide").config.size == HeightWidth(32, 48)


@pytest.mark.parametrize(
    ("net", "tensors"),
    [
        (foreign.ResnetGenerator(blocks=9), 48),
        (foreign.ResnetGenerator(blocks=6), 36),
        (foreign.ResnetGenerator(blocks=9, dropout=True), 48),
        (foreign.ResnetGenerator(blocks=9, norm="batch"), 140),
        (foreign.UnetGenerator(8), 82),
        (foreign.UnetGenerator(7), 70),
        (foreign.UnetGenerator(7, norm="instance"), 28),
        (foreign.NLayerDiscriminator(), 10),
        (foreign.NLayerDiscriminator(norm="batch"), 22),
        (foreign.UGATITGenerator(blocks=4), 44),
        (foreign.UGATITGenerator(blocks=4, light=True), 44),
    ],
)
def test_the_stand_ins_have_as_many_tensors_as_the_originals_files(net: nn.Module, tensors: int) -> None:
    assert len(net.state_dict()) == tensors


@pytest.mark.parametrize("prefix", ["module.", "_orig_mod.", "module._orig_mod."])
def test_wrapped_unets_and_wrapped_networks_within_a_dict_are_seen_through(prefix: str, tmp_path: Path) -> None:
    def wrapped(net: nn.Module) -> dict[str, Tensor]:
        return {prefix + key: tensor for key, tensor in net.state_dict().items()}

    torch.save(wrapped(foreign.UnetGenerator(5)), tmp_path / "latest_net_G.pth")
    assert import_checkpoint([tmp_path / "latest_net_G.pth"], tmp_path / "p").description.family == "pix2pix"
    both = {name: wrapped(foreign.UGATITGenerator(light=True)) for name in ("genA2B", "genB2A")}
    torch.save(both, tmp_path / "u.pt")
    assert import_checkpoint([tmp_path / "u.pt"], tmp_path / "u").description.networks == ("g_ab", "g_ba")


@pytest.mark.parametrize(("net", "dropped"), [(foreign.UnetGenerator(6, norm="instance"), 6)])
def test_old_statistics_in_a_unet_are_dropped_too(net: nn.Module, dropped: int, tmp_path: Path, caplog) -> None:
    state = dict(net.state_dict())
    for layer in ("model.model.1.model.2", "model.model.1.model.6"):
        for name in ("running_mean", "running_var", "num_batches_tracked"):
            state[f"{layer}.{name}"] = torch.ones(4)
    torch.save(state, tmp_path / "latest_net_G.pth")
    with caplog.at_level("DEBUG", logger="gantrt"):
        imported = import_checkpoint([tmp_path / "latest_net_G.pth"], tmp_path / "run")
    assert f"left out {dropped} statistics" in caplog.text
    assert imported.description.config["norm"] == "instance"


# What cannot be imported


def refused(tmp_path: Path, content: Any, text: str, error: type[GantrtError] = EngineMismatch) -> None:
    torch.save(content, tmp_path / "latest_net_G.pth")
    with pytest.raises(error, match=text) as caught:
        import_checkpoint([tmp_path / "latest_net_G.pth"], tmp_path / "run")
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "run").exists()


def test_networks_that_ours_cannot_be_are_refused_with_the_reason(tmp_path: Path) -> None:
    state = foreign.ResnetGenerator().state_dict()
    without_norm = {key: t for key, t in state.items() if not key.endswith("bias") or key.startswith("model.20")}
    refused(tmp_path, without_norm, "without norms")
    refused(tmp_path, state | {"model.5.filt": torch.ones(8, 1, 3, 3)}, "blurs other than CUT")
    cut = foreign.ResnetGenerator(blur_down=True).state_dict()
    refused(tmp_path, cut | {"model.7.filt": torch.full((8, 1, 3, 3), 1 / 9)}, "blurs other than CUT")
    zero_padded = {key.replace("conv_block.1.", "conv_block.0."): t for key, t in state.items()}
    refused(tmp_path, zero_padded, "conv_block.0")
    refused(tmp_path, {key.replace("model.12.", "model.14."): t for key, t in state.items()}, "model.14")
    refused(tmp_path, {key: t for key, t in state.items() if not key.startswith("model.19")}, "is not its last layer")
    refused(tmp_path, state | {"model.99.weight": torch.ones(3)}, "'model.99.weight'")
    refused(tmp_path, {key: t for key, t in state.items() if key != "model.4.weight"}, "lacks down.0.conv.weight")
    refused(tmp_path, state | {"model.4.weight": torch.ones(8, 4, 5, 5)}, "shape")
    refused(tmp_path, state | {"model.4.weight": torch.full((8, 4, 3, 3), float("nan"))}, "not finite")
    refused(tmp_path, nn.Linear(3, 3).state_dict(), "no network in it is one we know")
    refused(tmp_path, foreign.NLayerDiscriminator().state_dict(), "is a discriminator")


def test_unknown_networks_beside_known_ones_are_named(tmp_path: Path) -> None:
    state = {"netG": foreign.ResnetGenerator().state_dict(), "netF": nn.Linear(3, 3).state_dict()}
    torch.save(state, tmp_path / "both.pth")
    assert import_checkpoint([tmp_path / "both.pth"], tmp_path / "run").left_out == ("netF",)


class Command:
    """What a malicious file brings along."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> Any:
        return os.system, (f"touch {self.marker}",)


@pytest.mark.parametrize("kind", ["zip", "legacy", "bare", "in a module", "eval"])
def test_code_in_a_file_is_not_run(kind: str, tmp_path: Path, discogan_module) -> None:
    marker, path = tmp_path / "was_here", tmp_path / "latest_net_G.pth"
    content: Any = foreign.ResnetGenerator().state_dict() | {"extra": Command(marker)}
    if kind == "in a module":
        content = discogan_module()
        content.extra = Command(marker)
    if kind == "bare":
        path.write_bytes(pickle.dumps(Command(marker)))
    elif kind == "eval":
        path.write_bytes(b"\x80\x02c__builtin__\neval\nX\x0f\x00\x00\x00open('x', 'w+')\x85R.")
    else:
        torch.save(content, path, _use_new_zipfile_serialization=kind != "legacy")
    with pytest.raises(EngineCorrupt, match=r"would call (posix\.system|nt\.system|builtins\.eval)"):
        import_checkpoint([path], tmp_path / "run")
    assert not marker.exists()
    assert sorted(item.name for item in tmp_path.iterdir()) == [path.name]


@pytest.mark.parametrize("suffix", ["zip", "legacy", "module", "safetensors"])
@pytest.mark.parametrize("part", [0.1, 0.5, 0.99])
def test_damaged_files_are_refused_in_one_line(suffix: str, part: float, tmp_path: Path, discogan_module) -> None:
    path = tmp_path / "latest_net_G.pth"
    net = discogan_module()
    if suffix == "safetensors":
        save_file(net.state_dict(), path)
    else:
        torch.save(
            net if suffix == "module" else net.state_dict(), path, _use_new_zipfile_serialization=suffix == "zip"
        )
    path.write_bytes(path.read_bytes()[: int(path.stat().st_size * part)])
    with pytest.raises(EngineCorrupt) as caught:
        import_checkpoint([path], tmp_path / "run")
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    "content", [b"", b"PK\x03\x04", b"\x80", b"\x80\x02}q\x00.", b"\x89PNG\r\n\x1a\n" * 9, b"0" * 99]
)
def test_files_that_are_no_checkpoints_are_refused(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "x.pth").write_bytes(content)
    with pytest.raises(EngineCorrupt):
        import_checkpoint([tmp_path / "x.pth"], tmp_path / "run")
    with pytest.raises(UnsupportedInput):
        import_checkpoint([tmp_path / "nowhere.pth"], tmp_path / "run")


def test_every_layout_names_its_networks_for_some_family() -> None:
    for layout in list_layouts():
        assert layout.code_base
        assert all(ours.startswith(("g_", "d_")) for ours in layout.names.values())
        assert layout.recognise({"nothing.weight": torch.ones(1)}) is None


def test_keys_that_the_page_gives_for_other_options_exist() -> None:
    page = (Path(__file__).parent.parent / "docs" / "moving.md").read_text()
    tables = [section for section in page.split("\n## ") if section.startswith("Options of")]
    checked = 0
    for table in tables:
        for line in table.splitlines()[4:]:
            ours = line.split("|")[2] if line.startswith("|") else ""
            named = [name for name in ("pix2pix", "cyclegan") if f" {name}:" in ours]
            families = ["ugatit"] if "UGATIT" in table.splitlines()[0] else named or ["pix2pix", "cyclegan"]
            for key, value in re.findall(r"(\w+)=([\w.]+)", ours):
                for family in families:
                    make_recipe(family, "", overrides={key: value})
                    checked += 1
    assert checked > 60


OPTIONS = {
    "pytorch-CycleGAN-and-pix2pix": """
        aspect_ratio batch_size beta1 checkpoints_dir continue_train crop_size dataroot dataset_mode direction
        display_env display_freq display_id display_ncols display_port display_server display_winsize epoch
        epoch_count eval gan_mode gpu_ids init_gain init_type input_nc lambda_A lambda_B lambda_L1
        lambda_identity load_iter load_size lr lr_decay_iters lr_policy max_dataset_size model n_epochs
        n_epochs_decay n_layers_D name ndf netD netG ngf no_dropout no_flip no_html norm num_test num_threads
        output_nc phase pool_size preprocess print_freq results_dir save_by_iter save_epoch_freq
        save_latest_freq serial_batches suffix update_html_freq use_wandb verbose wandb_project_name""",
    "UGATIT-pytorch": """
        adv_weight batch_size benchmark_flag cam_weight ch cycle_weight dataset decay_flag device identity_weight img_ch
        img_size iteration light lr n_dis n_res phase print_freq result_dir resume save_freq weight_decay""",
}


@pytest.mark.parametrize("code_base", OPTIONS)
def test_the_page_answers_every_option_of_the_code_base(code_base: str) -> None:
    page = (Path(__file__).parent.parent / "docs" / "moving.md").read_text()
    section = page.partition(f"## Options of {code_base}")[2].partition("\n## ")[0]
    there = " ".join(line.split("|")[1] for line in section.splitlines() if line.startswith("|"))
    assert [
        option for option in OPTIONS[code_base].split() if not re.search(rf"--{option}(?![a-z0-9_])", there, re.I)
    ] == []


@pytest.mark.parametrize("zipped", [True, False])
def test_changed_bytes_never_end_in_another_error(zipped: bool, tmp_path: Path, discogan_module) -> None:
    torch.manual_seed(0)
    path = tmp_path / "model_gen_A-1.0"
    torch.save(discogan_module(), path, _use_new_zipfile_serialization=zipped)
    whole = path.read_bytes()
    for places in torch.randint(6000, (40, 3)).tolist():
        changed = bytearray(whole)
        for place in places:
            changed[place] ^= 0x55
        path.write_bytes(changed)
        with contextlib.suppress(EngineCorrupt):
            read_networks(path)
