"""PyTorch modules, and models of Hugging Face and timm, on the way into JAX."""

import json
import sys

import jax
import numpy as np
import pytest

from diffcf_jax import load_regressor
from diffcf_jax.errors import UserError
from diffcf_jax.regressors.function import load_object
from diffcf_jax.regressors.load import is_external
from diffcf_jax.regressors.output import Output
from diffcf_jax.regressors.preprocess import parse_preprocess
from diffcf_jax.regressors.regressor import assemble
from diffcf_jax.units import Unit

IMAGES = np.random.default_rng(0).random((2, 24, 24, 3)).astype(np.float32)


@pytest.fixture
def torch():
    pytest.importorskip("onnxscript")
    return pytest.importorskip("torch")


def module_of(torch):
    torch.manual_seed(0)
    return torch.nn.Sequential(
        torch.nn.Conv2d(3, 4, 3), torch.nn.BatchNorm2d(4), torch.nn.SiLU(), torch.nn.Dropout(),
        torch.nn.AdaptiveAvgPool2d(1), torch.nn.Flatten(), torch.nn.Linear(4, 1),
    )  # fmt: skip


def check(torch, regressor, module):
    """Value and gradient under jit and vmap are those of the module."""
    given = torch.tensor(np.asarray(regressor.preprocess(IMAGES)), requires_grad=True)
    expected = module.eval()(given)
    expected = getattr(expected, "logits", expected)[:, 0]
    expected.sum().backward()
    pull_back = jax.vjp(regressor.preprocess, IMAGES)[1]

    def one(variables, x):
        return regressor.apply(variables, x[None])[0]

    each = jax.jit(jax.vmap(jax.value_and_grad(one, 1), (None, 0)))
    values, slopes = each(regressor.variables, IMAGES)
    np.testing.assert_allclose(values, expected.detach().numpy(), rtol=1e-5)
    (by_hand,) = pull_back(given.grad.numpy())
    np.testing.assert_allclose(slopes, by_hand, rtol=1e-4, atol=1e-4 * np.abs(by_hand).max())


def test_modules_are_exported_for_the_size_of_the_pre_processing(torch):
    module, preprocess = module_of(torch), parse_preprocess("size=16 mean=0.5 std=0.2")
    model = load_object(module, "own:module", preprocess)
    check(torch, assemble(model, preprocess, Output(), Unit()), module)
    assert model.size == (16, 16) and model.source == "own:module"
    assert len(jax.tree.leaves(model.variables)) > 0  # its weights are in JAX
    again = load_object(module, "own:module", preprocess)
    assert model.digest == again.digest
    module[-1].bias.data += 1
    assert model.digest != load_object(module, "own:module", preprocess).digest


def test_what_torch_export_made_is_read_through_an_own_function(torch, tmp_path, monkeypatch):
    module = module_of(torch).eval()
    batch = {0: torch.export.Dim("batch")}
    example = torch.rand(2, 3, 24, 24)
    program = torch.export.export(module, (example,), dynamic_shapes=(batch,))
    torch.export.save(program, tmp_path / "model.pt2")
    with pytest.raises(UserError, match="model.pt2 may execute code when PyTorch reads it"):
        load_regressor(tmp_path / "model.pt2")
    (tmp_path / "own_pt2.py").write_text(
        "import torch\n\ndef model():\n    return torch.export.load('model.pt2')\n"
    )
    monkeypatch.chdir(tmp_path)
    check(torch, load_regressor("own_pt2:model", "size=24"), module)


def test_what_cannot_be_exported_is_called_back(torch, caplog):
    class Odd(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.scale = torch.nn.Parameter(torch.ones(()))

        def forward(self, x):
            if x.mean() > 0:  # depends on the data
                x = 2 * x
            return self.scale * x.mean((1, 2, 3))[:, None]

    module, preprocess = Odd(), parse_preprocess("size=24")
    with caplog.at_level("WARNING"):
        model = load_object(module, "own:odd", preprocess)
    assert "own:odd cannot be exported to ONNX" in caplog.text
    assert "PyTorch is called back instead" in caplog.text
    check(torch, assemble(model, preprocess, Output(), Unit()), module)


@pytest.fixture
def vit(torch, tmp_path):
    transformers = pytest.importorskip("transformers")
    torch.manual_seed(0)
    config = transformers.ViTConfig(
        hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=16,
        image_size=16, patch_size=8, num_labels=1,
    )  # fmt: skip
    module = transformers.ViTForImageClassification(config)
    module.save_pretrained(tmp_path / "vit")
    (tmp_path / "vit/preprocessor_config.json").write_text(
        json.dumps(
            {"size": {"height": 16, "width": 16}, "image_mean": [0.5] * 3, "image_std": [0.4] * 3}
        )
    )
    return module, tmp_path / "vit"


def test_folders_of_hugging_face_bring_their_pre_processing(torch, vit):
    module, folder = vit
    for spec in (folder, f"hf:{folder}"):
        regressor = load_regressor(spec)
        assert str(regressor.preprocess).startswith("size=16x16 mean=0.5,0.5,0.5 std=0.4,0.4,0.4")
        check(torch, regressor, module)
    assert is_external(folder) and regressor.source == f"hf:{folder}"
    assert load_regressor(folder, "size=16 std=2").preprocess.std == (2,)
    assert load_regressor(folder).fingerprint() == load_regressor(folder).fingerprint()


def test_folders_of_hugging_face_that_are_no_regressors_are_refused(vit):
    module, folder = vit
    (folder / "preprocessor_config.json").unlink()
    with pytest.raises(UserError, match="does not say how images are prepared for it"):
        load_regressor(folder)
    module.vit.save_pretrained(folder)  # without its head
    with pytest.raises(UserError, match="has no weights for 'classifier.bias': give a model that"):
        load_regressor(folder, "size=16")
    config = type(module.config)(**{**module.config.to_dict(), "num_labels": 7})
    type(module)(config).save_pretrained(folder)
    with pytest.raises(UserError, match="has 7 outputs per image: give column=N"):
        load_regressor(folder, "size=16").check_size(24)
    with pytest.raises(UserError, match=r"hf:nobody/nothing cannot be read by transformers \("):
        load_regressor("hf:nobody/nothing", "size=16")


def test_folders_of_timm_bring_their_pre_processing(torch, tmp_path):
    timm = pytest.importorskip("timm")
    torch.manual_seed(0)
    module = timm.create_model("test_efficientnet", num_classes=1)
    timm.models.save_for_hf(module, tmp_path, safe_serialization=True)
    regressor = load_regressor(tmp_path)
    assert regressor.preprocess.crop or regressor.preprocess.size
    check(torch, regressor, module)
    with pytest.raises(UserError, match=r"timm:nothing cannot be read by timm \(Unknown model"):
        load_regressor("timm:nothing")
    config = json.loads((tmp_path / "config.json").read_text())
    config["model_args"] = {"checkpoint_path": "evil.pth"}
    (tmp_path / "config.json").write_text(json.dumps(config))
    with pytest.raises(UserError, match="has checkpoint_path in model_args: remove it"):
        load_regressor(tmp_path)


def test_other_folders_and_missing_libraries_are_named(tmp_path, monkeypatch):
    (tmp_path / "config.json").write_text("{}")
    (tmp_path / "pytorch_model.bin").write_bytes(b"x")
    with pytest.raises(UserError, match="has no model.safetensors: .* are not read"):
        load_regressor(tmp_path)
    (tmp_path / "model.safetensors").write_bytes(b"x")
    with pytest.raises(UserError, match="config.json is neither of Hugging Face"):
        load_regressor(tmp_path)
    for name, spec in (("transformers", "hf:some/vit"), ("timm", "timm:resnet18")):
        monkeypatch.setitem(sys.modules, name, None)
        with pytest.raises(
            UserError, match=rf"is missing: pip install 'diffcf_jax\[torch\]' {name}"
        ):
            load_regressor(spec)
