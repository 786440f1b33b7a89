"""One segmentation of one image by another program, with the same weights; `peers.py` starts it and watches it.

    PYTHONPATH=. PYTHON benchmarks/peers_run.py {monai-25,nnunet,torch-em,...} IMAGE OUTPUT --model M --warm-up SMALL

IMAGE and SMALL are Zarr arrays (y, x) of uint8 in shards and chunks. SMALL is segmented first, so that imports, thread
pools and prepared convolutions are not counted. The last line printed is JSON. It runs where the peers are installed
and imports nothing of the project but `unet`: the network, torch alone.

A U-Net of valid convolutions gives less than it reads. What each peer makes of that:

    monai-25, monai-50  wants as much as it gives, so each window is mirrored at its own edges: what its user has to do
    nnunet              likewise
    monai-exact         windows with their halo, which a weight map of zeros throws away: arithmetic of the user's own
    torch-em            asks for a halo, and crops it: nothing is mirrored but the image's border
    dask                likewise; its "reflect" repeats the pixel at the border, unlike what all are compared with
    tiatoolbox          knows networks that give less than they read; white beyond the image's border
    patches             a patch for each pixel, as Ciresan et al. (NIPS 2012) before the paper; a part is measured. Each
                        is pooled from its own first pixel on, so labels are not those of one pass over the image
    network             no segmentation: the passes of torch-em alone, of noise, without reading or writing
"""

import argparse
import importlib
import json
import os
import time
from collections.abc import Callable
from importlib import metadata
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import torch
from peers_task import Network, Task
from torch.nn.functional import pad

from segment_slide.unet.checkpoint import open_checkpoint

SAMPLED_PIXELS, PATCHES_AT_ONCE = 200, 25  # pixels
Scores = torch.Tensor | np.ndarray | None  # logits (n_classes, y, x) where a peer holds them


# -- peers ---------------------------------------------------------------------------------------------------


@torch.inference_mode()
def run_monai(task: Task, overlap: float) -> Scores:
    """`monai.inferers.sliding_window_inference` (1.6.1); "gaussian" is what its tutorials and bundles choose."""
    from monai.inferers import sliding_window_inference

    pixels, roi = torch.from_numpy(task.read())[None, None], (task.tile, task.tile)
    logits = sliding_window_inference(pixels, roi, 1, task.network.same_size, overlap=overlap, mode="gaussian")[0]
    task.write(logits)
    return logits


@torch.inference_mode()
def run_monai_exact(task: Task) -> Scores:
    """The same function with windows that step by the tile and a weight map (`roi_weight_map`) without their halo."""
    from monai.inferers import sliding_window_inference

    halo, image = task.network.halo, task.read()
    height, width = image.shape
    image = np.pad(image, [(halo, halo + -size % task.tile) for size in image.shape], mode="reflect")
    roi = task.tile + 2 * halo
    weights = pad(torch.ones(task.tile, task.tile), (halo,) * 4)
    step = 1 - (task.tile + 0.5) / roi  # MONAI rounds the interval down
    pixels = torch.from_numpy(image)[None, None]
    logits = sliding_window_inference(
        pixels, (roi, roi), 1, task.network.padded, overlap=step, mode="constant", roi_weight_map=weights
    )[0, :, halo : halo + height, halo : halo + width]
    task.write(logits)
    return logits


def run_nnunet(task: Task) -> Scores:
    """`nnUNetPredictor.predict_sliding_window_return_logits` (nnunetv2 2.8.1) after `manual_initialization`.

    Its defaults, without mirroring (4 times the passes, which nobody else makes). Plans are the two numbers it reads.
    """
    from nnunetv2.inference.predict_from_raw_data import nnUNetPredictor

    device = torch.device("cpu")
    predictor = nnUNetPredictor(0.5, use_gaussian=True, use_mirroring=False, device=device, allow_tqdm=False)
    labels = SimpleNamespace(num_segmentation_heads=task.network.unet.architecture.n_classes)
    plans = SimpleNamespace(get_label_manager=lambda dataset: labels)
    configuration = SimpleNamespace(patch_size=(task.tile, task.tile))
    network = SameSize(task.network)
    predictor.manual_initialization(network, plans, configuration, None, {}, "", inference_allowed_mirroring_axes=None)
    logits = predictor.predict_sliding_window_return_logits(torch.from_numpy(task.read())[None, None])[:, 0]
    task.write(logits)
    return logits


class SameSize(torch.nn.Module):
    """A module, which is what nnU-Net asks for, that mirrors at the window's edges."""

    def __init__(self, network: Network) -> None:
        super().__init__()
        self.network = network

    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        return self.network.same_size(pixels)


def run_torch_em(task: Task) -> Scores:
    """`torch_em.util.prediction.predict_with_halo` (0.10.9), from Zarr to Zarr.

    Normalises by the image's constants: the default, `standardize`, measures each block, and then each has its own
    contrast. A shard would be rewritten for each block in it, so the output has chunks alone.
    """
    from torch_em.util.prediction import predict_with_halo

    predict_with_halo(
        task.open(),
        task.network.unet,
        gpu_ids=["cpu"],
        block_shape=(task.tile, task.tile),
        halo=(task.network.halo, task.network.halo),
        output=task.create(shards=False),
        preprocess=task.network.normalise,
        prediction_function=lambda _, pixels: task.network.padded(pixels),
        postprocess=lambda logits: logits.argmax(axis=0).astype(np.uint8),
        disable_tqdm=True,
    )


def run_dask(task: Task) -> Scores:
    """`dask.array.map_overlap` (2026.7.0) over the chunks as `from_zarr` finds them: what comes to mind first.

    Threads of this process, each with a core of its own for the network.
    """
    import dask
    import dask.array

    halo = task.network.halo

    def segment(block: np.ndarray) -> np.ndarray:
        scores = task.network.inner(torch.from_numpy(task.network.normalise(block))[None, None])
        return np.pad(scores[0].argmax(dim=0).to(torch.uint8).numpy(), halo)

    torch.set_num_threads(1)
    with dask.config.set(scheduler="threads", num_workers=task.threads):
        image = dask.array.from_zarr(task.image)
        meta = np.empty((0, 0), np.uint8)  # else it tries the function on an empty array
        labels = dask.array.map_overlap(segment, image, depth=halo, boundary="reflect", dtype=np.uint8, meta=meta)
        labels.to_zarr(task.output)


def run_tiatoolbox(task: Task) -> Scores:
    """`tiatoolbox.models.SemanticSegmentor` (2.1.3), whole slide mode; tiles and batches of its own defaults' kind.

    It reads no Zarr 3, so `task.image` is a copy as OME-Zarr 0.4 in RGB, made beforehand. All glass is segmented too.
    """
    from tiatoolbox.models.engine.io_config import IOSegmentorConfig
    from tiatoolbox.models.engine.semantic_segmentor import SemanticSegmentor
    from tiatoolbox.wsicore.wsireader import WSIReader

    baseline = [{"units": "baseline", "resolution": 1.0}]
    read = task.tile + 2 * task.network.halo
    config = IOSegmentorConfig(
        input_resolutions=baseline,
        output_resolutions=baseline,
        patch_input_shape=(read, read),
        patch_output_shape=(task.tile, task.tile),
        stride_shape=(task.tile, task.tile),
        save_resolution=baseline[0],
    )
    engine = SemanticSegmentor(tiatoolbox_model(task.network), batch_size=8, num_workers=0, verbose=False)
    reader = WSIReader.open(task.image)
    engine.run(
        [reader],
        patch_mode=False,
        ioconfig=config,
        save_dir=Path(task.output),
        output_type="zarr",
        auto_get_mask=False,
    )


def tiatoolbox_model(network: Network) -> torch.nn.Module:
    """The network as TIAToolbox wants one: RGB windows (n, y, x, c) in, probabilities (n, y, x, class) out."""
    from tiatoolbox.models.models_abc import ModelABC

    class Model(ModelABC):
        def __init__(self) -> None:
            super().__init__()
            self.network = network

        def forward(self, pixels: torch.Tensor) -> torch.Tensor:
            return self.network.inner(pixels)

        @staticmethod
        def infer_batch(model: torch.nn.Module, batch_data: torch.Tensor, *, device: str) -> np.ndarray:
            pixels = torch.from_numpy(network.normalise(batch_data[..., 0].numpy()))[:, None]
            return model(pixels).softmax(dim=1).permute(0, 2, 3, 1).numpy()

        @staticmethod
        def postproc(image: np.ndarray) -> np.ndarray:
            return image.argmax(axis=-1).astype(np.uint8)

    return Model()


def run_patches(task: Task) -> Scores:
    """A window of 188 px, the smallest that gives a pixel, for each of some pixels; their labels are the result.

    The whole network is run; its expansive path, on the few pixels that are left, is a twentieth of the operations.
    """
    side = task.network.halo * 2
    padded = np.pad(task.read(), task.network.halo, mode="reflect")
    places = np.random.default_rng(0).integers(0, task.open().shape, (SAMPLED_PIXELS, 2))
    labels, began = [], (time.perf_counter(), time.process_time())
    for start in range(0, len(places), PATCHES_AT_ONCE):
        windows = [padded[y : y + side, x : x + side] for y, x in places[start : start + PATCHES_AT_ONCE]]
        with torch.inference_mode():
            scores = task.network.unet(torch.from_numpy(np.stack(windows))[:, None].to(task.network.dtype))
        labels.append(scores[:, :, task.network.crop, task.network.crop].argmax(dim=1))
    spent = {"seconds": time.perf_counter() - began[0], "cpu_s": time.process_time() - began[1]}
    task.sample.update(spent, pixels=len(places))
    np.save(task.output, np.column_stack([places, torch.cat(labels).numpy()]))  # y, x, label


def run_network(task: Task) -> Scores:
    """As many passes as torch-em's, of one window."""
    height, width = (-(-size // task.tile) for size in task.open().shape)
    read = task.tile + 2 * task.network.halo
    pixels = torch.randn(1, 1, read, read, generator=torch.Generator().manual_seed(0))
    for _ in range(height * width):
        task.network.inner(pixels)


PEERS: dict[str, Callable[[Task], Scores]] = {
    "monai-25": lambda task: run_monai(task, 0.25),
    "monai-50": lambda task: run_monai(task, 0.5),
    "monai-exact": run_monai_exact,
    "nnunet": run_nnunet,
    "torch-em": run_torch_em,
    "dask": run_dask,
    "tiatoolbox": run_tiatoolbox,
    "patches": run_patches,
    "network": run_network,
}
MODULES = {  # imported before the warm-up: part of the start, which is not the steady part but of the whole process
    "monai-25": "monai.inferers",
    "monai-50": "monai.inferers",
    "monai-exact": "monai.inferers",
    "nnunet": "nnunetv2.inference.predict_from_raw_data",
    "torch-em": "torch_em.util.prediction",
    "dask": "dask.array",
    "tiatoolbox": "tiatoolbox.models.engine.semantic_segmentor",
}


def load(peer: str) -> str:
    """Import a peer and say what it is, as "monai 1.6.1, torch 2.13.0"."""
    packages = ["torch"]
    if peer in MODULES:
        importlib.import_module(MODULES[peer])
        packages.insert(0, MODULES[peer].partition(".")[0])
    return ", ".join(f"{name} {metadata.version(name)}" for name in packages)


def timed(peer: str, task: Task) -> tuple[Scores, dict[str, float]]:
    """What it returns, with its wall and processor seconds."""
    began = time.perf_counter(), time.process_time()
    scores = PEERS[peer](task)
    return scores, {"seconds": time.perf_counter() - began[0], "cpu_s": time.process_time() - began[1]}


def main() -> None:
    """Warm up, run, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("peer", choices=PEERS)
    parser.add_argument("image")
    parser.add_argument("output")
    parser.add_argument("--model", required=True)
    parser.add_argument("--warm-up", required=True, help="a small image")
    parser.add_argument("--precision", choices=("float32", "bfloat16"), default="float32")
    parser.add_argument("--tile", type=int, default=512)
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--scores", help="where to keep scores (.npy); after the clock has stopped")
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    loaded = load(given.peer)
    network = Network(open_checkpoint(given.model), given.precision).eval()
    _, warm_up = timed(given.peer, Task(network, given.warm_up, f"{given.output}-warm-up", given.tile, given.threads))
    task = Task(network, given.image, given.output, given.tile, given.threads)
    scores, found = timed(given.peer, task)
    beside = dict(warm_up)
    if given.scores and scores is not None:
        began = time.perf_counter(), time.process_time()
        np.save(given.scores, np.asarray(scores))
        beside["seconds"] += time.perf_counter() - began[0]
        beside["cpu_s"] += time.process_time() - began[1]
    print(json.dumps({**found, "beside": beside, "sample": task.sample, "versions": loaded}))


if __name__ == "__main__":
    main()
