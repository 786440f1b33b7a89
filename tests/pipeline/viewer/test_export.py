"""An exported viewer is the served one, file by file; what was interrupted does not look whole."""

import errno
import os
import shutil
import stat
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from segment_slide.pipeline.errors import InputError, OutputError
from segment_slide.pipeline.viewer import export as view_export
from segment_slide.pipeline.viewer import export_copy, export_plan
from segment_slide.pipeline.viewer.export import export
from segment_slide.pipeline.viewer.export_plan import MARK, plan_export
from segment_slide.pipeline.viewer.server import serve
from segment_slide.pipeline.viewer.site import client_files
from tests.flows.support import noise, snapshot, tree, write_array, write_ome
from tests.pipeline.viewer.site import ask, below, make_site, site_of


@pytest.fixture
def site(tmp_path):
    return make_site(tmp_path / "stores")


def files(folder: Path) -> set[str]:
    return set(tree(folder))


def test_an_export_holds_what_the_server_serves_and_nothing_else(site, tmp_path):
    report = export(site, tmp_path / "out")
    shown = files(tmp_path / "out/v/view")
    with serve(site) as server:
        for path in shown:
            assert ask(server, below(server, path)).body == (tmp_path / "out/v/view" / path).read_bytes(), path
    chunks = {"zarr.json"} | {f"{n}/{path}" for n in "01" for path in files(Path(site.stores["data/0"], n))}
    assert {path for path in shown if path.startswith("data/0/")} == {f"data/0/{path}" for path in chunks}
    assert {path for path in shown if "/" not in path} == {"index.html", "view.js", *client_files()}
    assert files(tmp_path / "out") == {f"v/view/{path}" for path in shown} | {"index.html", MARK}
    assert {path.name for path in tmp_path.iterdir()} == {"stores", "out"}
    assert report.n_files == len(shown) + 1
    assert (report.n_kept, report.n_linked) == (0, 0)


def test_only_the_levels_of_an_image_are_taken_along_and_all_of_a_bare_array(tmp_path):
    image = write_ome(tmp_path / "image.ome.zarr", noise(50, 60), "yx")
    write_ome(image / "labels/cells", noise(50, 60), "yx")
    (image / "tables").mkdir()
    unfinished = f"0/c/0/0.{'0123456789abcdef' * 2}.partial"
    for other in ("tables/cells.parquet", "picture.png", ".segment-slide.lock", unfinished):
        (image / other).write_bytes(b"private")
    bare = write_array(tmp_path / "bare.zarr", noise(50, 60))
    export(site_of(image, image / "labels/cells", bare), tmp_path / "out")
    data = tmp_path / "out/v/view/data"
    assert files(data / "0") == {"zarr.json", "0/zarr.json", "0/c/0/0"}
    assert tree(data / "1") == tree(image / "labels/cells")
    assert tree(data / "2") == tree(bare)


def test_what_else_lies_in_a_levels_folder_is_left(tmp_path):
    image = write_ome(tmp_path / "image.ome.zarr", noise(50, 60), "yx")
    others = ("evil.html", "0/evil.html", "0/c/evil.html", "0/c/0/evil.html", "0/c/0/1", "0/c/0/00", "0/c/0.0", "0/0/0")
    for other in others:
        (image / other).parent.mkdir(exist_ok=True)
        (image / other).write_bytes(b"<script>alert(1)</script>")
    export(site_of(image, image / "0"), tmp_path / "out")
    data = tmp_path / "out/v/view/data"
    assert files(data / "0") == {"zarr.json", "0/zarr.json", "0/c/0/0"}
    assert files(data / "1") == {"zarr.json", "c/0/0"}
    (image / "0/zarr.json").write_text('{"node_type": "array"}')
    with pytest.raises(InputError, match=r"0/zarr\.json cannot be read as metadata of an array"):
        export(site_of(image), tmp_path / "out")


@pytest.mark.parametrize("shape", [(), (7,), (10, 12), (3, 10, 12)])
@pytest.mark.parametrize("separator", ["/", "."])
@pytest.mark.parametrize("form", ["default", "v2", "sharded", "format 2"])
def test_all_files_that_zarr_writes_of_an_array_are_its_files(form, separator, shape, tmp_path):
    import zarr

    chunks = tuple(min(4, size) for size in shape)
    options = {"shards": tuple(2 * chunk for chunk in chunks)} if form == "sharded" and shape else {}
    name = "v2" if form in ("v2", "format 2") else "default"
    array = zarr.create_array(
        tmp_path / "a.zarr",
        shape=shape,
        chunks=chunks,
        dtype="uint8",
        fill_value=0,
        zarr_format=2 if form == "format 2" else 3,
        chunk_key_encoding={"name": name, "separator": separator},
        **options,
    )
    array[...] = 1 + np.arange(np.prod(shape, dtype=int), dtype="uint8").reshape(shape)
    export(site_of(tmp_path / "a.zarr"), tmp_path / "out")
    assert tree(tmp_path / "out/v/view/data/0") == tree(tmp_path / "a.zarr")
    assert len(tree(tmp_path / "a.zarr")) > 1


def test_groups_on_the_way_to_a_level_and_dotfiles_of_older_formats_are_taken_along(tmp_path):
    import zarr

    root = zarr.create_group(tmp_path / "old.zarr", zarr_format=2)
    datasets = [{"path": "deep/er/0", "coordinateTransformations": [{"type": "scale", "scale": [1, 1]}]}]
    axes = [{"name": "y", "type": "space"}, {"name": "x", "type": "space"}]
    root.attrs["multiscales"] = [{"version": "0.4", "axes": axes, "datasets": datasets}]
    root.create_array("deep/er/0", shape=(10, 10), chunks=(5, 5), dtype="uint8")[...] = noise(10, 10)
    export(site_of(tmp_path / "old.zarr"), tmp_path / "out")
    data = tmp_path / "out/v/view/data/0"
    assert tree(data) == tree(tmp_path / "old.zarr")
    assert {".zattrs", ".zgroup", "deep/er/0/.zarray", "deep/er/0/0.0"} < files(data)


def test_the_start_page_leads_to_the_viewer_by_relative_addresses(site, tmp_path):
    """The folder works below any address."""
    export(site, tmp_path / "out")
    page = (tmp_path / "out/index.html").read_text()
    assert 'url=v/view/"' in page
    assert "://" not in page
    assert 'src="/' not in page
    assert str(tmp_path) not in (tmp_path / "out" / MARK).read_text()  # where stores lie is nobody's business


# -- folders ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["new", "empty", "deep/er/new"])
def test_new_and_empty_folders_are_taken(name, site, tmp_path):
    (tmp_path / "empty").mkdir()
    export(site, tmp_path / name)
    assert (tmp_path / name / "index.html").is_file()
    assert not list(tmp_path.glob("**/*.partial"))


def test_a_folder_of_somebody_else_is_refused_and_left(site, tmp_path):
    for name in ("out", "out.partial", "out.replaced"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "thesis.tex").write_text("x")
        before = snapshot(tmp_path)
        with pytest.raises(InputError, match=f"{name} holds 'thesis.tex'"):
            export(site, tmp_path / "out")
        assert snapshot(tmp_path) == before
        shutil.rmtree(tmp_path / name)
    (tmp_path / "file").touch()
    with pytest.raises(InputError, match="is a file"):
        export(site, tmp_path / "file")


@pytest.mark.parametrize("where", ["stores/a.ome.zarr", "stores/a.ome.zarr/web", "stores"])
def test_a_folder_in_a_store_or_around_it_is_refused(where, site, tmp_path):
    before = snapshot(tmp_path)
    with pytest.raises(InputError, match="lie in each other"):
        export(site, tmp_path / where)
    assert snapshot(tmp_path) == before


def test_a_url_is_refused(site):
    with pytest.raises(InputError, match="expected a local folder"):
        export(site, "s3://bucket/out")


def test_an_earlier_export_is_replaced_whole(site, tmp_path):
    export(site, tmp_path / "out")
    (tmp_path / "out/v/view/data/0/left.over").touch()
    write_ome(tmp_path / "other.ome.zarr", noise(20, 20, seed=5), "yx")
    export(site_of(tmp_path / "other.ome.zarr"), tmp_path / "out")
    export(site_of(tmp_path / "other.ome.zarr"), tmp_path / "fresh")
    assert tree(tmp_path / "out") == tree(tmp_path / "fresh")
    assert {path.name for path in tmp_path.iterdir()} == {"stores", "out", "fresh", "other.ome.zarr"}


def test_of_a_link_the_folder_that_it_leads_to_is_taken_and_the_link_stays(site, tmp_path):
    (tmp_path / "disk").mkdir()
    (tmp_path / "out").symlink_to(tmp_path / "disk/web")  # not there yet
    for _ in range(2):
        assert export(site, tmp_path / "out").folder == tmp_path / "disk/web"
        assert (tmp_path / "out").is_symlink()
        assert (tmp_path / "disk/web/index.html").is_file()
        assert {path.name for path in tmp_path.iterdir()} == {"stores", "disk", "out"}
        assert {path.name for path in (tmp_path / "disk").iterdir()} == {"web"}
    (tmp_path / "circle").symlink_to("circle")
    with pytest.raises(InputError, match="leads in a circle"):
        export(site, tmp_path / "circle")


@pytest.mark.parametrize("name", ["zarr.json", ".zgroup", ".zattrs", ".zarray"])
@pytest.mark.parametrize("where", ["other", "other/web", "other/deep/er/web", "link/web"])
def test_a_folder_in_any_zarr_store_is_refused(name, where, site, tmp_path):
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / name).write_text("{}")
    (tmp_path / "link").symlink_to("other")
    before = snapshot(tmp_path)
    with pytest.raises(InputError, match="which is a Zarr store"):
        export(site, tmp_path / where)
    assert snapshot(tmp_path) == before


def test_where_a_disk_is_mounted_is_refused_before_anything_is_copied(site, tmp_path, monkeypatch):
    (tmp_path / "out").mkdir()
    monkeypatch.setattr(os.path, "ismount", lambda path: str(path) == str(tmp_path / "out"))
    with pytest.raises(InputError, match="name a folder in it"):
        export(site, tmp_path / "out")
    assert {path.name for path in tmp_path.iterdir()} == {"stores", "out"}
    assert export(site, tmp_path / "out/web").n_files


def test_a_folder_lets_in_whom_it_let_in_before(site, tmp_path):
    (tmp_path / "out").mkdir()
    for mode in (0o700, 0o2750):
        (tmp_path / "out").chmod(mode)
        export(site, tmp_path / "out")
        assert stat.S_IMODE((tmp_path / "out").stat().st_mode) == mode


def test_what_others_may_not_read_in_a_store_they_may_not_read_in_a_copy(site, tmp_path, monkeypatch):
    private, public = (Path(site.stores["data/0"], f"0/c/0/{index}") for index in (0, 1))
    private.chmod(0o600)
    public.chmod(0o666)
    monkeypatch.setattr(view_export, "_put_in_place", stop_here)
    before = os.umask(0o022)
    try:
        with pytest.raises(KeyboardInterrupt):
            export(site, tmp_path / "out")
        monkeypatch.undo()
        data = tmp_path / "out.partial/v/view/data/0/0/c/0"
        assert [stat.S_IMODE((data / name).stat().st_mode) for name in "01"] == [0o600, 0o644]
        public.chmod(0o600)  # kept copies too follow
        export(site, tmp_path / "out")
    finally:
        os.umask(before)
    data = tmp_path / "out/v/view/data/0/0/c/0"
    assert [stat.S_IMODE((data / name).stat().st_mode) for name in "01"] == [0o600, 0o600]


def stop_here(*_):
    raise KeyboardInterrupt


@pytest.mark.parametrize("name", ["out.partial", "out.replaced"])
def test_what_somebody_else_has_prepared_is_refused(name, site, tmp_path, monkeypatch):
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / name).symlink_to("elsewhere")
    with pytest.raises(InputError, match="is no folder"):
        export(site, tmp_path / "out")
    (tmp_path / name).unlink()
    (tmp_path / name / "v").mkdir(parents=True)
    (tmp_path / name / MARK).write_text("{}")
    (tmp_path / name / "v/view").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(InputError, match="v/view is a link"):
        export(site, tmp_path / "out")
    (tmp_path / name / "v/view").unlink()
    with monkeypatch.context() as patch:
        patch.setattr(os, "geteuid", lambda: (tmp_path / name).stat().st_uid + 1)
        with pytest.raises(InputError, match="belongs to another user"):
            export(site, tmp_path / "out")
    (tmp_path / name / MARK).unlink()
    (tmp_path / name / MARK).symlink_to(tmp_path / "elsewhere/mark")
    with pytest.raises(InputError, match="is a link"):
        export(site, tmp_path / "out")
    assert list((tmp_path / "elsewhere").iterdir()) == []
    (tmp_path / name / MARK).unlink()
    (tmp_path / name / MARK).write_text("{}")
    assert export(site, tmp_path / "out").n_files


# -- links and odd files ---------------------------------------------------------------------------------------


def test_links_inside_are_copied_as_what_they_lead_to(site, tmp_path):
    chunk = Path(site.stores["data/0"], "0/c/0/0")
    content = chunk.read_bytes()
    chunk.rename(chunk.with_name("moved"))
    chunk.symlink_to("moved")
    export(site, tmp_path / "out")
    copied = tmp_path / "out/v/view/data/0/0/c/0/0"
    assert copied.read_bytes() == content
    assert not copied.is_symlink()


@pytest.mark.parametrize("hard_links", [False, True])
@pytest.mark.parametrize("kind", ["file", "folder", "level", "nowhere"])
def test_a_link_that_leaves_the_store_is_refused_by_its_name(kind, hard_links, site, tmp_path):
    store, outside = Path(site.stores["data/0"]), tmp_path / "outside"
    outside.mkdir()
    (outside / "secret").write_text("secret")
    if kind == "level":
        shutil.move(store / "0", outside / "0")
    link = {"file": "0/c/0/9", "folder": "0/c/9", "level": "0", "nowhere": "0/c/0/9"}[kind]
    goal = {"file": outside / "secret", "folder": outside, "level": outside / "0", "nowhere": tmp_path / "no"}[kind]
    (store / link).symlink_to(goal)
    with pytest.raises(InputError, match=f"{link} leads to .*outside of"):
        export(site, tmp_path / "out", hard_links=hard_links)
    assert not (tmp_path / "out").exists()
    assert not (tmp_path / "out.partial").exists()


def test_a_circle_of_links_is_refused(site, tmp_path):
    Path(site.stores["data/0"], "0/c/again").symlink_to("..", target_is_directory=True)
    with pytest.raises(InputError, match="leads in a circle"):
        export(site, tmp_path / "out")


def test_a_level_that_leads_out_by_its_name_is_refused(tmp_path):
    store = write_ome(tmp_path / "a.ome.zarr", noise(20, 20), "yx")
    write_array(tmp_path / "other", noise(5, 5))
    metadata = (store / "zarr.json").read_text()
    (store / "zarr.json").write_text(metadata.replace('"path": "0"', '"path": "../other"'))
    with pytest.raises(InputError, match="is not a path in a store"):
        export(site_of(store), tmp_path / "out")


def test_what_is_no_file_is_left_out_as_the_server_does(site, tmp_path):
    os.mkfifo(Path(site.stores["data/0"], "0/c/fifo"))
    export(site, tmp_path / "out")
    assert "v/view/data/0/0/c/fifo" not in files(tmp_path / "out")


# -- hard links ------------------------------------------------------------------------------------------------


def test_hard_links_are_the_same_files_and_copies_are_not(site, tmp_path):
    copied, linked = export(site, tmp_path / "copied"), export(site, tmp_path / "linked", hard_links=True)
    assert tree(tmp_path / "copied") == tree(tmp_path / "linked")
    source = Path(site.stores["data/0"], "0/c/0/0")
    assert source.samefile(tmp_path / "linked/v/view/data/0/0/c/0/0")
    assert not source.samefile(tmp_path / "copied/v/view/data/0/0/c/0/0")
    assert linked.n_linked == sum(len(tree(Path(location))) for location in site.stores.values())
    assert copied.n_linked == 0
    before = source.read_bytes()  # a shard that is written again is another file
    source.with_name("aside").write_bytes(b"new")
    source.with_name("aside").replace(source)
    assert (tmp_path / "linked/v/view/data/0/0/c/0/0").read_bytes() == before


def test_where_links_are_not_to_be_had_files_are_copied(site, tmp_path, monkeypatch):
    def refuse(*_, **__):
        raise OSError(errno.EXDEV, "another disk")

    monkeypatch.setattr(os, "link", refuse)
    assert export(site, tmp_path / "out", hard_links=True).n_linked == 0
    monkeypatch.undo()
    export(site, tmp_path / "fresh")
    assert tree(tmp_path / "out") == tree(tmp_path / "fresh")


# -- room and interruptions ------------------------------------------------------------------------------------


def test_a_disk_that_is_too_small_is_refused_before_anything_is_written(site, tmp_path, monkeypatch):
    n_bytes = plan_export(site, tmp_path / "out").n_bytes
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage._replace(free=n_bytes - 1))
    before = snapshot(tmp_path)
    with pytest.raises(InputError, match=rf"needs .* GB more .* {n_bytes / 1e9:.3f} GB free"):
        export(site, tmp_path / "out")
    assert snapshot(tmp_path).keys() == before.keys()
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage._replace(free=2 * n_bytes))
    assert export(site, tmp_path / "out").n_bytes == n_bytes


def test_a_disk_with_too_few_inodes_is_refused(site, tmp_path, monkeypatch):
    n_files = plan_export(site, tmp_path / "out").n_files
    found = os.statvfs(tmp_path)

    def report(n_free, n_all=1000):
        fields = {name: getattr(found, name) for name in dir(found) if name.startswith("f_")}
        fields |= {"f_favail": n_free, "f_files": n_all}
        monkeypatch.setattr(os, "statvfs", lambda _: SimpleNamespace(**fields))

    report(n_files - 1)
    with pytest.raises(InputError, match=f"needs {n_files} files more .* room for {n_files - 1} "):
        export(site, tmp_path / "out")
    assert not (tmp_path / "out").exists()
    report(0, 0)  # a disk that makes inodes as it needs them
    assert export(site, tmp_path / "out").n_files == n_files


def test_while_files_are_listed_it_is_told_how_many(site, tmp_path, monkeypatch):
    monkeypatch.setattr(export_plan, "_TOLD_FILES", 5)
    told = []
    plan = plan_export(site, tmp_path / "out", told.append)
    assert told == list(range(5, len(plan.copies) + 1, 5))
    assert told


def interrupt_after(n_files: int, monkeypatch) -> None:
    """Let the copying of one more file than that be interrupted, half of it written."""
    whole, n_begun = export_copy._read, []

    def read(copy, file, start):
        n_begun.append(copy)
        if len(n_begun) > n_files:
            raise KeyboardInterrupt
        return whole(copy, file, start)

    monkeypatch.setattr(export_copy, "_THREADS", 1)
    monkeypatch.setattr(export_copy, "_read", read)


def test_interrupted_nothing_looks_whole_and_the_same_command_goes_on(site, tmp_path, monkeypatch):
    export(site, tmp_path / "undisturbed")
    interrupt_after(3, monkeypatch)
    with pytest.raises(KeyboardInterrupt):
        export(site, tmp_path / "out")
    monkeypatch.undo()
    assert not (tmp_path / "out").exists()
    assert (tmp_path / "out.partial").is_dir()
    begun = []
    report = export(site, tmp_path / "out", begin=lambda plan, n_kept: begun.append(n_kept) or (lambda _: None))
    assert report.n_kept == begun[0] == 3
    assert tree(tmp_path / "out") == tree(tmp_path / "undisturbed")
    assert not (tmp_path / "out.partial").exists()


def test_interrupted_the_earlier_export_stays_and_one_of_other_stores_begins_anew(site, tmp_path, monkeypatch):
    export(site, tmp_path / "out")
    before = snapshot(tmp_path / "out")
    interrupt_after(3, monkeypatch)
    with pytest.raises(KeyboardInterrupt):
        export(site, tmp_path / "out")
    monkeypatch.undo()
    assert snapshot(tmp_path / "out") == before
    other = site_of(site.stores["data/1"])
    assert export(other, tmp_path / "out").n_kept == 0
    export(other, tmp_path / "fresh")
    assert tree(tmp_path / "out") == tree(tmp_path / "fresh")


@pytest.mark.parametrize("when", ["before", "between", "after"])
def test_killed_while_folders_change_places_the_same_command_does_the_rest(when, site, tmp_path, monkeypatch):
    export(site, tmp_path / "out")
    export(site, tmp_path / "fresh")

    class Killed(BaseException):
        pass

    def die(*_):
        raise Killed

    n_renames = []
    rename = Path.rename

    def rename_once(path, target):
        n_renames.append(path)
        if when == "before" or (when == "between" and len(n_renames) == 2):
            raise Killed
        return rename(path, target)

    monkeypatch.setattr(Path, "rename", rename_once)
    if when == "after":
        monkeypatch.setattr(shutil, "rmtree", die)
    with pytest.raises(Killed):
        export(site, tmp_path / "out")
    monkeypatch.undo()
    assert (tmp_path / "out").exists() == (when != "between")
    export(site, tmp_path / "out")
    assert tree(tmp_path / "out") == tree(tmp_path / "fresh")
    assert {path.name for path in tmp_path.iterdir()} == {"stores", "out", "fresh"}


def test_a_file_that_changed_meanwhile_is_copied_again(site, tmp_path, monkeypatch):
    interrupt_after(4, monkeypatch)
    with pytest.raises(KeyboardInterrupt):
        export(site, tmp_path / "out")
    monkeypatch.undo()
    for chunk in Path(site.stores["data/0"], "0/c").rglob("*"):
        if chunk.is_file():
            content = chunk.read_bytes()
            chunk.write_bytes(content[::-1])
    export(site, tmp_path / "out")
    assert tree(tmp_path / "out/v/view/data/0") == tree(Path(site.stores["data/0"]))


def test_copies_that_follow_interrupted_links_do_not_write_into_the_store(site, tmp_path, monkeypatch):
    before = snapshot(Path(site.stores["data/0"]))

    def fail(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(view_export, "_remove_others", fail)
    with pytest.raises(KeyboardInterrupt):
        export(site, tmp_path / "out", hard_links=True)
    monkeypatch.undo()
    report = export(site, tmp_path / "out")
    assert (report.n_kept, report.n_linked) == (0, 0)
    assert snapshot(Path(site.stores["data/0"])) == before
    assert not Path(site.stores["data/0"], "zarr.json").samefile(tmp_path / "out/v/view/data/0/zarr.json")


def test_a_disk_that_fails_is_told_with_the_folder(site, tmp_path, monkeypatch):
    def fail(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(export_copy, "_make_way", fail)
    with pytest.raises(OutputError, match="out cannot be written: .*No space left"):
        export(site, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_chunk_that_cannot_be_read_is_named(site, tmp_path, monkeypatch):
    def fail(*_):
        raise OSError(errno.EIO, "Input/output error")

    def begin(*_):  # metadata of the levels have been read by then
        monkeypatch.setattr(os, "pread", fail)
        return lambda _: None

    with pytest.raises(InputError, match=r"a\.ome\.zarr/.* cannot be read: .*Input/output error"):
        export(site, tmp_path / "out", begin=begin)
    assert not (tmp_path / "out").exists()
