"""Pictures by the folder: some are decoded and some encoded while others are in the network."""

from __future__ import annotations

import dataclasses
from collections import deque
from collections.abc import Generator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import chain, repeat
from typing import TYPE_CHECKING

from .threads import usable_cpus
from .video import NULL
from .video.images import read_picture, write_picture

if TYPE_CHECKING:
    from .translator import Translator
    from .video.plan import Job

_MOST_CODECS = 4  # threads that decode and encode; each holds a picture, and large ones are large


def translated_stills(
    translator: Translator, jobs: Sequence[Job], *, overwrite: bool
) -> Generator[tuple[Job, Future[None]], None, None]:
    """Translate pictures into pictures; yield each job, in order, with its outcome, which is there already.

    Each picture has a thread from its first byte to its last: `streams` of them are in the network, the others decode,
    encode, or wait with a picture in hand for their turn, so that the network need not. Leaving early lets those
    that were begun end; none is left half-written.
    """

    def work(job: Job) -> None:
        picture = read_picture(job.inputs[0])
        image = translator.submit(picture.image).result()
        if job.output != NULL:
            write_picture(job.output, dataclasses.replace(picture, image=image), overwrite=overwrite)

    workers = translator.info.streams + 1 + min(max(usable_cpus(), 2), _MOST_CODECS)
    under_way: deque[tuple[Job, Future[None]]] = deque()
    pool = ThreadPoolExecutor(workers, thread_name_prefix="gantrt-still")
    try:
        for job in chain(jobs, repeat(None, 2 * workers)):
            if job is not None:
                under_way.append((job, pool.submit(work, job)))
            if under_way and (job is None or len(under_way) >= 2 * workers):
                done, outcome = under_way.popleft()
                outcome.exception()  # waits
                yield done, outcome
    finally:
        pool.shutdown(wait=True, cancel_futures=True)
