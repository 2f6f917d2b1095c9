"""Random checkpoints that mlx-lm's own quantize_model converts, as nearly all are that people download."""

import copy
import json

import architectures
import mlx.core as mx
from mlx.utils import tree_flatten, tree_map_with_path
from mlx_lm.utils import _get_classes, quantize_model, save_config

# config.json as its publisher and transformers write it, at tiny sizes.
POPULAR = json.loads((architectures.HERE / "popular.json").read_text())


def convert(config, seed, folder, dtype=None, **options):
    config = copy.deepcopy(config)
    model_class, args_class = _get_classes(config)
    model = model_class(args_class.from_dict(copy.deepcopy(config)))
    mx.random.seed(seed)
    model.update(tree_map_with_path(architectures.random_parameter, model.parameters()))
    if dtype:
        keep = getattr(model, "cast_predicate", lambda path: True)
        model.update(tree_map_with_path(lambda path, w: w.astype(dtype) if keep(path) else w, model.parameters()))
    model, config = quantize_model(model, config, **options)
    folder.mkdir()
    weights = dict(tree_flatten(model.parameters()))
    if "vision_config" in config:
        weights["vision_tower.patch_embed.proj.weight"] = mx.ones((2, 3, 1, 2, 2))
    mx.save_safetensors(str(folder / "model.safetensors"), weights, metadata={"format": "mlx"})
    save_config(config, folder / "config.json")
