"""Check a request for training samples against its training set and output. Nothing is measured or created."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace

from segment_slide.cluster.spec import ClusterSpec
from segment_slide.flows.training_requests import TrainingDataRequest
from segment_slide.flows.workers import plan_cluster
from segment_slide.pipeline.blocks.memory import check_fits
from segment_slide.pipeline.errors import InputError
from segment_slide.pipeline.recorded.addresses import naming
from segment_slide.pipeline.storage import store
from segment_slide.pipeline.storage.names import say_location
from segment_slide.pipeline.storage.record import Results, code_version
from segment_slide.pipeline.training.records import AugmentChoices, SampleChoices, SetReference
from segment_slide.pipeline.training.sample_set import SampleSet, check_place, compare_sample_sets, find_sample_set
from segment_slide.pipeline.training.samples_run import fingerprint_set, plan_task_bytes, split_images
from segment_slide.pipeline.training.stored_pixels import StoredAnnotation, open_annotation
from segment_slide.pipeline.training.training_set import TrainingSet, check_complete, read_training_set
from segment_slide.unet.draw import SampleSettings, check_sources
from segment_slide.unet.normalisation import AUTO

_TILE_PX = {2: 256, 3: 64}
_DEPTH = {2: 4, 3: 3}  # 4 is the paper's; in 3D its halo would make samples four times as large


@dataclass(frozen=True)
class PreparedSamples:
    """A checked request, before any work.

    Attributes
    ----------
    samples : SampleSet
        The sample set to make, as far as it is known before anything is read.
    settings : SampleSettings
        How samples are drawn.
    training, validation : list of StoredAnnotation
        Images, not normalised yet.
    cluster : ClusterSpec
        Where tasks run.
    begun : SampleSet or None
        The sample set that an earlier run began at the same location.
    """

    samples: SampleSet
    settings: SampleSettings
    training: list[StoredAnnotation]
    validation: list[StoredAnnotation]
    cluster: ClusterSpec
    begun: SampleSet | None


def prepare_samples(request: TrainingDataRequest) -> PreparedSamples:
    """Check everything that can be checked without reading pixels or creating a file.

    Raises
    ------
    UnetError, PipelineError, ClusterError
        If the request is bad; the message says what to change.
    """
    training_set = read_training_set(request.training_set)
    check_complete(training_set)
    if request.n < 1:
        raise InputError(f"n={request.n} samples, expected at least 1.")
    if request.validation_tiles < 1:
        raise InputError(f"validation_tiles={request.validation_tiles}, expected at least 1.")
    settings = _settings(request, training_set)
    split = split_images(
        training_set, share=request.validation_share, names=request.validation_names, seed=request.seed
    )
    with naming(request.images_at, training_set.location):
        training, validation = ([open_annotation(training_set, image) for image in part] for part in split)
    check_sources([*training, *validation], settings)
    samples = _describe(request, training_set, settings, training, validation)
    _check_constants(samples)
    inputs = [training_set.location, *(item.source.image.location for item in (*training, *validation))]
    check_place(samples.location, inputs)
    begun = find_sample_set(samples.location)
    if begun is not None:
        samples = _adopt_normalisation(samples, begun)
        compare_sample_sets(begun, samples)
    cluster = plan_cluster(request.workers)
    _check_memory(samples, settings, cluster)
    return PreparedSamples(samples, settings, training, validation, cluster, begun)


def _settings(request: TrainingDataRequest, training_set: TrainingSet) -> SampleSettings:
    n_spatial = training_set.n_spatial
    tile_px = request.tile_px or (_TILE_PX[n_spatial],)
    depth = _DEPTH[n_spatial] if request.depth is None else request.depth
    if len(tile_px) == 1:
        tile_px *= n_spatial
    if len(tile_px) != n_spatial:
        raise InputError(f"tile={tile_px} px, expected 1 or {n_spatial} sizes: the training set is {n_spatial}D.")
    anisotropy = request.anisotropy
    if anisotropy is None and n_spatial == 3 and training_set.pixel_size_um:
        anisotropy = training_set.pixel_size_um[0] / training_set.pixel_size_um[-1]
    augment = request.augment if anisotropy is None else replace(request.augment, anisotropy=anisotropy)
    return SampleSettings(tile_px, depth, request.seed, request.foreground_share, augment)


def _describe(
    request: TrainingDataRequest,
    training_set: TrainingSet,
    settings: SampleSettings,
    training: Sequence[StoredAnnotation],
    validation: Sequence[StoredAnnotation],
) -> SampleSet:
    """Describe the sample set as far as it is known before anything is read."""
    axes = max((item.source.axes for item in (*training, *validation)), key=len)
    choices = SampleChoices(
        tile_px=settings.tile_px,
        depth=settings.depth,
        seed=settings.seed,
        foreground_share=settings.foreground_share,
        augment=AugmentChoices(**asdict(settings.augment)),
        place_axes=axes,
        normalisation=request.normalisation,
        validation_tiles=request.validation_tiles,
        version=code_version(),
        results=Results.TRAINING_DATA,
    )
    return SampleSet(
        location=store.resolve_location(request.output),
        n_spatial=training_set.n_spatial,
        n_channels=training[0].n_channels,
        depth=settings.depth,
        tile_px=settings.tile_px,
        n_training=request.n,
        n_validation=0,
        class_names=training_set.class_names,
        channel_names=training_set.channel_names,
        pixel_size_um=training_set.pixel_size_um,
        normalisation=request.normalisation,
        training_images=tuple(item.image.name for item in training),
        validation_images=tuple(item.image.name for item in validation),
        settings=choices,
        training_set=SetReference(
            say_location(training_set.location, store.resolve_location(request.output)), fingerprint_set(training_set)
        ),
    )


def _adopt_normalisation(samples: SampleSet, begun: SampleSet) -> SampleSet:
    """Go on with constants in a set that was begun before "auto" existed, when constants were the default."""
    given, before = samples.settings.normalisation, begun.settings.normalisation
    is_older = begun.intensities is None and before.kind == "constants" and not before.offset
    if given.kind == AUTO and is_older:
        return replace(samples, settings=replace(samples.settings, normalisation=before))
    return samples


def _check_constants(samples: SampleSet) -> None:
    """Refuse a number of constants other than one per channel or none."""
    given, n = samples.normalisation, samples.n_channels
    if given.kind == "constants" and (len(given.offset), len(given.scale)) not in ((0, 0), (n, n)):
        raise InputError(
            f"normalisation offset={given.offset}, scale={given.scale}: expected one value each per channel ({n}), or "
            f"none, so that they are measured."
        )


def _check_memory(samples: SampleSet, settings: SampleSettings, cluster: ClusterSpec) -> None:
    tasks = cluster.tasks_per_worker
    needed = plan_task_bytes(samples, settings) * tasks
    remedy = f"choose a smaller `tile` (now {samples.tile_px}) or `depth` (now {samples.depth})"
    check_fits(
        needed, cluster.usable_bytes, remedy, doing=f"that makes {tasks} samples of {samples.read_px} px at a time"
    )
