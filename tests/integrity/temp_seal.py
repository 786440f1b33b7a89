from segment_slide.pipeline.blocks.progress import QuietStages
from segment_slide.pipeline.manifest.homes import Made
from segment_slide.pipeline.manifest.sealing import sealing


def s(loc, folders, files=()):
    if loc.exists() and not (loc / "_manifest").exists():
        for f, x in zip(folders, files or [()] * len(folders)):
            with sealing(Made(str(loc), tuple(f), tuple(x)), None, QuietStages()):
                pass


def seal_all(f):
    s(f / "slide.ome.zarr", [[""]])
    s(f / "set.zarr", [[""]])
    s(f / "samples.zarr", [[""]])
    s(
        f / "out.ome.zarr",
        [
            ["labels/segmentation", "probability/segmentation"],
            ["labels/segmentation-instances"],
            ["tables/segmentation-instances.parquet"],
        ],
        [
            ["zarr.json", "labels/zarr.json", "probability/zarr.json"],
            ["zarr.json", "labels/zarr.json"],
            [
                "tables/zarr.json",
                "tables/segmentation-instances.html",
                "tables/segmentation-instances.png",
                "labels/segmentation-instances/zarr.json",
            ],
        ],
    )
