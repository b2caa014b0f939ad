from __future__ import annotations

import itertools
import math

from hypothesis import given
from hypothesis import strategies as st

from twolayer.reporting.downsampling import downsample, evenly

VALUES = st.lists(st.floats(), max_size=300)


@given(VALUES, st.integers(4, 80))
def test_thinned_places_are_few_in_order_and_hold_both_ends_and_both_extremes(values: list[float], most: int) -> None:
    finite = [i for i, value in enumerate(values) if math.isfinite(value)]
    kept = downsample(values, most)
    assert len(kept) <= most
    assert kept == sorted(set(kept))
    assert set(kept) <= set(finite)
    if finite:
        assert (kept[0], kept[-1]) == (finite[0], finite[-1])
        for extreme in (min, max):
            assert extreme(values[i] for i in kept) == extreme(values[i] for i in finite)


@given(VALUES, st.integers(4, 80))
def test_what_is_few_enough_is_left_whole(values: list[float], most: int) -> None:
    finite = [i for i, value in enumerate(values) if math.isfinite(value)]
    if len(finite) <= most:
        assert downsample(values, most) == finite


@given(st.integers(0, 10**6), st.integers(4, 400))
def test_a_lone_spike_stays_wherever_it_is(place: int, most: int) -> None:
    values = [1.0] * 20_000
    for spike in (0.5, 2.0):
        values[place % len(values)] = spike
        assert place % len(values) in downsample(values, most)


@given(st.integers(0, 10**6), st.integers(2, 200))
def test_places_that_are_even_hold_both_ends_and_no_gap_is_more_than_one_wider_than_another(
    count: int, most: int
) -> None:
    places = evenly(count, most)
    assert len(places) == min(count, most)
    assert places == sorted(set(places))
    if count:
        assert (places[0], places[-1]) == (0, count - 1)
    gaps = [after - before for before, after in itertools.pairwise(places)]
    assert not gaps or max(gaps) - min(gaps) <= 1
