"""The model of many GPUs: limiting cases, loops in the place of formulae, and docs/scaling.md."""

import math
from pathlib import Path

import pytest

from negvision.engine.parallel import scaling
from negvision.engine.parallel.scaling import (
    ETHERNET,
    INFINIBAND,
    MIB,
    Cluster,
    Exchange,
    Step,
    atss_r50,
    buckets,
    exposed_seconds,
    table,
    unpg_exchanges,
    unpg_r50,
)

PAGE = Path(__file__).parents[3] / "docs" / "scaling.md"
FAST = Cluster("no network", 8, 1e30, 1e30, 1e12, 1e12)


@pytest.fixture
def no_latency(monkeypatch):
    monkeypatch.setattr(scaling, "_latency", lambda *_: 0.0)


def ring_of(kind, size, ranks):
    """Bytes that each rank sends where chunks go around, step by step."""
    chunk, sent = size / ranks, [0.0] * ranks
    for _ in range((2 if kind == "all_reduce" else 1) * (ranks - 1)):
        for rank in range(ranks):
            sent[rank] += chunk
    (one,) = set(sent)
    return one


@pytest.mark.parametrize("kind", ["all_reduce", "all_gather"])
@pytest.mark.parametrize("ranks", [1, 2, 3, 8, 64])
def test_bytes_are_those_of_a_ring(kind, ranks):
    assert Exchange(kind, 1920.0).sent(ranks) == pytest.approx(ring_of(kind, 1920.0, ranks))


def test_one_rank_waits_for_nobody():
    for work in (atss_r50, unpg_r50):
        step = work(1, ETHERNET)
        assert step.waiting(1, ETHERNET) == 0
        assert step.seconds(1, ETHERNET) == step.alone + step.backward
        assert step.sent(1) == 0


def test_large_exchanges_are_bandwidth_and_small_ones_latency():
    size = 1e12
    ideal = Exchange("all_reduce", size).sent(64) / (0.8 * 400e9)
    assert Exchange("all_reduce", size).seconds(64, INFINIBAND) == pytest.approx(ideal, rel=1e-3)
    # In a machine NVLink counts, out of it the slower network, which all GPUs of it share.
    assert INFINIBAND.bandwidth(8) == pytest.approx(0.8 * 450e9)
    assert ETHERNET.bandwidth(9) == pytest.approx(0.8 * 12.5e9)
    small = [Exchange("all_reduce", 4).seconds(ranks, INFINIBAND) for ranks in (2, 8, 64, 512)]
    assert small == sorted(small)
    # A tree: 7 hops in the machine and 6 between 64 of them, there and back.
    assert small[-1] == pytest.approx(4.4e-6 + 2 * (7 * 0.52e-6 + 6 * 5e-6), rel=1e-3)
    # A gather has no tree: it visits all.
    gather = Exchange("all_gather", 4).seconds(512, INFINIBAND)
    assert gather == pytest.approx(3.6e-6 + 448 * 0.47e-6 + 63 * 2.7e-6, rel=1e-3)


def test_buckets_hold_all_gradients():
    assert buckets(60 * MIB) == [1 * MIB, 25 * MIB, 25 * MIB, 9 * MIB]
    assert buckets(0.5 * MIB) == [0.5 * MIB]
    assert sum(buckets(4 * 32_069_978)) == 4 * 32_069_978


def slow_exposed(sizes, backward, cost):
    """The exchanges on a time line of a thousand ticks of the backward pass."""
    tick, time, waiting, done, link_free = backward / 1000, 0.0, list(sizes), 0.0, 0.0
    total = sum(sizes)
    for number in range(1, 1001):
        time = number * tick
        while waiting and done + waiting[0] <= total * number / 1000 * (1 + 1e-12):
            done += waiting.pop(0)
            link_free = max(link_free, time) + cost(sizes[len(sizes) - len(waiting) - 1])
    return link_free - backward


@pytest.mark.parametrize("backward", [1e-3, 5e-3, 2e-2, 1.0])
@pytest.mark.parametrize("cluster", [INFINIBAND, ETHERNET], ids=lambda cluster: cluster.name)
def test_overlap_is_that_of_a_time_line(backward, cluster):
    size = 101 * MIB
    cost = lambda size: Exchange("all_reduce", size).seconds(64, cluster)  # noqa: E731
    expected = slow_exposed(buckets(size), backward, cost)
    found = exposed_seconds(size, backward, 64, cluster)
    assert found == pytest.approx(expected, abs=backward / 500)
    # At least the last bucket; at most all of them, as without any overlap.
    costs = [cost(bucket) for bucket in buckets(size)]
    assert costs[-1] - 1e-12 <= found <= sum(costs) + 1e-12


def test_without_backward_nothing_overlaps(no_latency):
    size = 64 * MIB
    found = exposed_seconds(size, 0.0, 64, INFINIBAND)
    assert found == pytest.approx(Exchange("all_reduce", size).seconds(64, INFINIBAND))


def test_without_a_network_to_wait_for_scaling_is_ideal(no_latency):
    step = Step(4, 0.1, 0.2, 1e8, unpg_exchanges(512, 8, 512))
    assert step.seconds(512, FAST) == pytest.approx(0.3)
    assert "| 512 | 6,827 | 100% |" in table(lambda *_: step, FAST, (512,))


def test_work_of_the_centres_is_shared_and_their_gradients_stay():
    few, many = unpg_r50(8, INFINIBAND), unpg_r50(512, INFINIBAND)
    # Twice the ranks have half the centres and twice the batch; pairs grow, and are few.
    assert many.alone == pytest.approx(few.alone, rel=0.05)
    assert few.gradient_bytes == many.gradient_bytes < 4 * 1_000_000 * 512
    # Embeddings are gathered, and their gradient reduced: three times (n - 1) / n of them.
    of_loss = sum(exchange.sent(512) for exchange in many.exchanges)
    assert of_loss == pytest.approx(3 * 64 * 512 * 512 * 4 * 511 / 512, rel=0.02)
    # More identities are more work, and not a byte more.
    twice = unpg_r50(512, INFINIBAND, classes=2_000_000)
    assert twice.exchanges == many.exchanges and twice.alone > many.alone


def test_more_machines_are_never_more_of_the_ideal():
    for work in (atss_r50, unpg_r50):
        for cluster in (INFINIBAND, ETHERNET):
            times = [work(n, cluster).seconds(n, cluster) for n in (1, 8, 64, 512)]
            assert times == sorted(times)
    assert math.isclose(atss_r50(8, INFINIBAND).sent(8), 4 * 32_069_978 * 7 / 4, rel_tol=1e-6)


def test_the_page_has_what_the_code_prints():
    page = PAGE.read_text()
    for work in (atss_r50, unpg_r50):
        for cluster in (INFINIBAND, ETHERNET):
            assert table(work, cluster, (1, 8, 64, 512)) in page, (work.__name__, cluster.name)


def test_the_page_has_the_shares_at_other_speeds(monkeypatch):
    page = PAGE.read_text()
    for share in (0.1, 0.2, 0.4):
        monkeypatch.setattr(scaling, "CONVOLUTION_SHARE", share)
        cells = [
            work(1, INFINIBAND).seconds(1, INFINIBAND)
            / work(512, INFINIBAND).seconds(512, INFINIBAND)
            for work in (atss_r50, unpg_r50)
        ]
        assert f"| {share} | {cells[0]:.0%} | {cells[1]:.0%} |" in page


def test_gradients_are_those_of_the_configs():
    from mmengine.config import Config
    from mmengine.registry import init_default_scope

    from negvision.registry import MODELS

    configs = PAGE.parents[1] / "configs"
    init_default_scope("mmdet")
    detector = Config.fromfile(configs / "atss_r50.py").model
    detector.backbone.init_cfg = None
    face = Config.fromfile(configs / "unpg_r50.py").model
    face.head = None
    for model, work in ((detector, atss_r50), (face, unpg_r50)):
        trained = [p.numel() for p in MODELS.build(model).parameters() if p.requires_grad]
        assert 4 * sum(trained) == work(8, INFINIBAND).gradient_bytes
