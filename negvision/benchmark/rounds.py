"""Time subjects in turns, so that a busy neighbour touches all of them alike."""

import time
from collections.abc import Callable, Mapping

from negvision.benchmark.subjects import Subject

ROUNDS = 7


def images_per_second(
    subjects: Mapping[str, Subject],
    batch_size: int,
    seconds: float,
    clock: Callable[[], float] = time.perf_counter,
) -> dict[str, list[float]]:
    """Images a second of each subject in each of ``ROUNDS`` rounds.

    Args:
        subjects: Warm already.
        batch_size: Images of a batch.
        seconds: Of each subject over all rounds; at least once all batches run in a round.
        clock: Seconds.
    """
    rates: dict[str, list[float]] = {name: [] for name in subjects}
    for _ in range(ROUNDS):
        for name, subject in subjects.items():
            # Threads of the one before may still be spinning.
            subject.run(0)
            images, start = 0, clock()
            while not images or clock() - start < seconds / ROUNDS:
                for number in range(subject.batches):
                    subject.run(number)
                images += subject.batches * batch_size
            rates[name].append(images / (clock() - start))
    return rates
