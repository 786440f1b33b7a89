"""Start the worker of a job: ``python -m segment_slide.cluster.kinds.batch_worker MODULE ARGUMENTS``.

The module is the command line of Dask's workers or of dask-cuda's. What it lacks is added here, where the job runs: the
scratch folder is new and private, queues are pipes, and a worker that is killed before it has connected is started
again. Dask's own scratch folder has a name that everybody knows, so somebody else could have made it before.
"""

import runpy
import sys
import tempfile

from segment_slide.cluster.security import private_folder

_OPTION = "--local-directory"


def split_arguments(arguments: list[str]) -> tuple[list[str], str | None]:
    """Take the scratch folder out of a worker's arguments.

    Examples
    --------
    >>> split_arguments(["tls://a:1", "--local-directory", "/tmp", "--nanny"])
    (['tls://a:1', '--nanny'], '/tmp')
    >>> split_arguments(["tls://a:1"])
    (['tls://a:1'], None)
    """
    if _OPTION not in arguments:
        return arguments, None
    place = arguments.index(_OPTION)
    return [*arguments[:place], *arguments[place + 2 :]], arguments[place + 1]


def run_worker(module: str, arguments: list[str]) -> None:
    """Run a worker in a private scratch folder until it ends.

    Parameters
    ----------
    module : str
        Module that is run as a program.
    arguments : list of str
        Its arguments. Its ``--local-directory`` is where the private folder is made; by default that is the folder
        for temporary files.
    """
    import dask
    import distributed

    from segment_slide.cluster.kinds.pipes import pipes_for_queues
    from segment_slide.cluster.processes import PatientNanny

    rest, folder = split_arguments(arguments)
    distributed.Nanny = PatientNanny  # type: ignore[misc]  # the module imports it from there
    parent = folder or dask.config.get("temporary-directory", None) or tempfile.gettempdir()
    with private_folder(parent, "", key="local_directory") as scratch, pipes_for_queues():
        sys.argv = [module, *rest, _OPTION, scratch]
        runpy.run_module(module, run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    run_worker(sys.argv[1], sys.argv[2:])
