"""The ionm1 parser: every byte order of events that USB, a bad cable or a bad device can give."""

from __future__ import annotations

import zlib

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ionmd.decode import _decode
from ionmd.decode.ionm1 import Ionm1Decoder, block_bytes
from ionmd.model import Block, Gap, MarkKind, StimState
from tests.ionm1_encoder import BOOT, SESSION, encode, mark, truth

LSB = 0.0286


def decoder(inputs: int = 5, ring_bytes: int = 1 << 20) -> Ionm1Decoder:
    d = Ionm1Decoder([LSB * (1 + i / 10) for i in range(inputs)], ring_bytes)
    d.begin(SESSION, BOOT)
    return d


def drain(d: Ionm1Decoder, inputs: int = 5, capacity: int = 50) -> list[Block]:
    """Every block there is, the unfinished last one too; each a fresh object."""
    blocks = []
    while True:
        b = Block(capacity, inputs, 20_000.0)
        complete = d.read_into(b)
        if b.n or b.gap:
            blocks.append(b)
        if not complete:
            return blocks


def check(blocks: list[Block], inputs: int = 5, start: int | None = None) -> tuple[int, int]:
    """Samples and losses of these blocks; every count, uV and range is checked against `truth`."""
    at, samples, lost = start, 0, 0
    lsb = np.array([LSB * (1 + i / 10) for i in range(inputs)], np.float32)
    for b in blocks:
        assert (b.lost > 0) == bool(b.gap & Gap.LOST)
        if at is not None:
            assert b.first == at + b.lost
        at = b.first + b.n
        samples += b.n
        lost += b.lost
        want = truth(b.first, b.n, inputs)
        assert np.array_equal(b.counts[: b.n, :inputs], want)
        uv = want.astype(np.float32) * lsb
        assert np.array_equal(b.uv[: b.n, :inputs], uv)
        assert not b.counts[: b.n, inputs:].any() and not b.uv[: b.n, inputs:].any()
        if b.n:
            assert np.array_equal(b.lo[:inputs], uv.min(0)) and np.array_equal(b.hi[:inputs], uv.max(0))
    return samples, lost


@pytest.mark.parametrize("inputs", [1, 3, 4, 5, 8, 16, 17, 31, 32, 63, 64])
def test_counts_and_microvolts_are_exact_for_any_number_of_inputs(inputs):
    d = decoder(inputs)
    for k in range(6):
        assert d.feed(encode(truth(100 + 40 * k, 40, inputs), 100 + 40 * k, k))
    assert check(drain(d, inputs, 64), inputs) == (240, 0)


@pytest.mark.parametrize("n", [0, 1, 15, 16, 63, 64, 65, 127, 128, 1000, 7716])
def test_crc_is_that_of_zlib_on_both_paths(n):
    data = np.random.default_rng(n).integers(0, 256, n + 3, np.uint8)[3:].tobytes()
    for start in (0, 0xDEADBEEF):
        want = zlib.crc32(data, start)
        assert _decode.crc32(data, start) == want
        assert _decode.crc32(data, start, portable=True) == want


def test_a_block_grows_over_several_reads_until_it_is_full():
    d = decoder()
    b = Block(100, 5, 20_000.0)
    d.feed(encode(truth(0, 40, 5), 0, 0))
    assert not d.read_into(b) and b.n == 40
    d.feed(encode(truth(40, 40, 5), 40, 1))
    assert not d.read_into(b) and b.n == 80
    d.feed(encode(truth(80, 40, 5), 80, 2))
    assert d.read_into(b) and b.n == 100
    check([b])
    rest = Block(100, 5, 20_000.0)
    assert not d.read_into(rest) and (rest.first, rest.n) == (100, 20)


def test_rows_stop_at_the_limit_and_go_on_from_there():
    d = decoder()
    d.feed(encode(truth(1000, 40, 5), 1000, 0))
    b = Block(100, 5, 20_000.0)
    assert d.read_into(b, 1013) and (b.first, b.n) == (1000, 13)
    b2 = Block(100, 5, 20_000.0)
    assert not d.read_into(b2, 1100) and (b2.first, b2.n) == (1013, 27)
    check([b, b2])


def test_a_limit_inside_a_gap_gives_a_block_without_rows_that_tells_of_the_gap():
    d = decoder()
    d.feed(encode(truth(0, 40, 5), 0, 0))
    d.feed(encode(truth(400, 40, 5), 400, 10))
    b = Block(100, 5, 20_000.0)
    assert d.read_into(b, 100) and (b.first, b.n) == (0, 40)
    b.clear()
    assert d.read_into(b, 100) and (b.first, b.n, b.lost, b.gap) == (400, 0, 360, Gap.LOST)
    b.clear()
    assert not d.read_into(b, 500) and (b.first, b.n, b.lost, b.gap) == (400, 40, 0, Gap.NONE)


def test_first_block_of_a_session_says_so_and_a_continued_counter_gives_the_exact_gap():
    d = decoder()
    d.feed(encode(truth(0, 40, 5), 0, 0))
    (b,) = drain(d)
    assert b.gap == Gap.SESSION and b.lost == 0 and b.session == SESSION
    d.begin(SESSION + 1, BOOT)
    d.feed(encode(truth(40, 40, 5), 40, 1))  # left over from the old session
    d.feed(encode(truth(777, 40, 5), 777, 0, session=SESSION + 1))
    (b,) = drain(d)
    assert b.gap == Gap.SESSION | Gap.LOST and b.lost == 737 and b.session == SESSION + 1
    assert d.counters()["stale"] == 1
    d.begin(SESSION + 2, BOOT + 1)  # it lost power: the counter says nothing about the gap
    d.feed(encode(truth(5, 40, 5), 5, 0, session=SESSION + 2, boot=BOOT + 1))
    (b,) = drain(d)
    assert b.gap == Gap.SESSION and b.lost == 0 and b.first == 5


def test_rows_unread_at_a_new_session_are_counted_lost():
    d = decoder()
    for k in range(3):
        d.feed(encode(truth(40 * k, 40, 5), 40 * k, k))
    b = Block(10, 5, 20_000.0)
    d.read_into(b)
    d.begin(SESSION + 1, BOOT)
    d.feed(encode(truth(200, 40, 5), 200, 0, session=SESSION + 1))
    assert sum(x.lost for x in drain(d)) == 190


def test_a_wrong_payload_crc_costs_exactly_that_block():
    d = decoder()
    bad = bytearray(encode(truth(40, 40, 5), 40, 1))
    bad[100] ^= 4
    for blob in (encode(truth(0, 40, 5), 0, 0), bytes(bad), encode(truth(80, 40, 5), 80, 2)):
        d.feed(blob)
    assert check(drain(d)) == (80, 40)
    assert d.counters()["bad_frames"] == 1


def test_a_duplicate_and_a_late_block_add_no_sample_and_change_no_loss():
    d = decoder()
    k = [encode(truth(40 * i, 40, 5), 40 * i, i, marks=(mark(40 * i + 1, nonce=i),)) for i in range(4)]
    for blob in (k[0], k[0], k[2], k[1], k[3], k[3]):
        d.feed(blob)
    blocks = drain(d)
    assert check(blocks) == (120, 40)
    # The late block is no duplicate of a block: its marks were never seen and are kept.
    assert sorted(m.nonce for b in blocks for m in b.marks) == [0, 1, 2, 3]
    assert d.counters()["duplicates"] == 3


def test_a_block_over_known_samples_gives_only_the_new_ones():
    d = decoder()
    d.feed(encode(truth(0, 40, 5), 0, 0))
    d.feed(encode(truth(30, 40, 5), 30, 1))
    assert check(drain(d), start=0) == (70, 0)


def test_a_block_ending_on_a_packet_border_is_padded_and_the_padding_is_skipped():
    inputs = 5
    n = next(n for n in range(1, 4096) if (64 + 3 * inputs * n + 4) % 512 == 0)
    d = decoder()
    blob = encode(truth(0, n, inputs), 0, 0)
    assert len(blob) % 512 == 4 and len(blob) == block_bytes(inputs, n)
    d.feed(blob)
    d.feed(encode(truth(n, n, inputs), n, 1))
    assert check(drain(d)) == (2 * n, 0)
    assert d.counters()["bad_frames"] == 0


def test_blocks_cut_anywhere_and_several_in_a_transfer_are_put_together():
    stream = b"".join(encode(truth(40 * i, 40, 5), 40 * i, i) for i in range(8))
    for step in (1, 7, 63, 64, 65, 500, 667, 668, 669, 5000):
        d = decoder()
        for at in range(0, len(stream), step):
            d.feed(stream[at : at + step])
        assert check(drain(d)) == (320, 0), step
        assert d.counters()["bad_frames"] == 0


def test_a_truncated_transfer_is_one_bad_frame_and_an_exact_gap():
    d = decoder()
    d.feed(encode(truth(0, 40, 5), 0, 0))
    d.feed(encode(truth(40, 40, 5), 40, 1)[:512])
    d.feed(encode(truth(80, 40, 5), 80, 2))
    assert check(drain(d)) == (80, 40)
    assert d.counters()["bad_frames"] == 1


def test_other_sessions_other_boots_and_unknown_types_are_counted_and_skipped():
    d = decoder()
    d.feed(encode(truth(0, 40, 5), 0, 0))
    d.feed(encode(truth(40, 40, 5), 40, 1, session=SESSION - 1))
    d.feed(encode(truth(40, 40, 5), 40, 1, boot=BOOT + 1))
    d.feed(encode(truth(40, 40, 5), 40, 1, type_=9))
    d.feed(encode(truth(40, 40, 5), 40, 1, version=2))
    d.feed(encode(truth(40, 40, 4), 40, 1))
    d.feed(encode(truth(40, 40, 5), 40, 1))
    assert check(drain(d)) == (80, 0)
    c = d.counters()
    assert (c["stale"], c["unknown"], c["bad_frames"]) == (2, 1, 2)


def test_marks_come_with_the_rows_of_their_sample_and_keep_every_field():
    d = decoder()
    d.feed(encode(truth(0, 40, 5), 0, 0, marks=(
        mark(35, 1, output=2, slot=3, flags=1 | 8 | 16, pulse=4, width_us=200, nonce=99, set_=-25_000,
             delivered=-24_900, value=150_000),
        mark(10, 3, output=0, flags=32),
        mark(12, 4, value=4 + 256 * 15),
        mark(12, 5, output=7, delivered=4_700),
        mark(45, 6, output=1, value=25),
    )))  # fmt: skip
    d.feed(encode(truth(40, 40, 5), 40, 1, stim=4))
    b = Block(20, 5, 20_000.0)
    assert d.read_into(b)
    cautery, state, impedance = b.marks
    assert (cautery.kind, cautery.sample, cautery.output, cautery.value) == (MarkKind.AUX, 10, 0, 1)
    assert (state.kind, state.state, state.value) == (MarkKind.STIM_STATE, StimState.TRIPPED, 15)
    assert (impedance.kind, impedance.output, impedance.value) == (MarkKind.IMPEDANCE, 7, 4_700)
    b.clear()
    assert d.read_into(b)
    (pulse,) = b.marks
    assert pulse.kind == MarkKind.PULSE and pulse.last and pulse.compliance and pulse.ok and not pulse.no_contact
    assert (pulse.sample, pulse.output, pulse.slot, pulse.pulse, pulse.nonce) == (35, 2, 3, 4, 99)
    assert (pulse.set, pulse.delivered, pulse.width_us, pulse.polarity, pulse.value) == (-25.0, -24.9, 200, -1, 150_000)
    b.clear()
    assert d.read_into(b) and [m.kind for m in b.marks] == [MarkKind.FIRE_REFUSED]
    assert b.stim_state == StimState.TRIPPED


def test_marks_of_lost_blocks_arrive_with_the_next_rows():
    d = decoder()
    d.feed(encode(truth(0, 40, 5), 0, 0))
    d.feed(encode(truth(120, 40, 5), 120, 3, flags=1, dropped=2, marks=(mark(50, nonce=5), mark(130, nonce=6))))
    first, second = drain(d)
    assert first.marks == [] and second.gap == Gap.LOST | Gap.OVERFLOW and second.lost == 80
    assert [m.sample for m in second.marks] == [50, 130]
    assert d.counters()["dropped_blocks"] == 2


def test_hundreds_of_marks_in_one_read_all_arrive_once_in_order():
    d = decoder(ring_bytes=1 << 20)
    for i in range(12):
        marks = tuple(mark(40 * i + j % 40, nonce=256 * i + j) for j in range(256))
        d.feed(encode(truth(40 * i, 40, 5), 40 * i, i, marks=marks))
    b = Block(1000, 5, 20_000.0)
    assert not d.read_into(b)
    assert len(b.marks) == 12 * 256 and len({m.nonce for m in b.marks}) == 12 * 256
    assert [m.sample for m in b.marks] == sorted(m.sample for m in b.marks)
    assert d.counters()["marks_lost"] == 0


def test_status_blocks_carry_state_and_marks_but_no_samples():
    d = decoder()
    d.feed(encode(np.zeros((0, 5), np.int32), 0, 0, type_=4, session=0, stim=1, marks=(mark(3, 5, delivered=900),)))
    b = Block(100, 5, 20_000.0)
    assert not d.read_into(b) and b.n == 0 and b.stim_state == StimState.CONFIGURED
    d.feed(encode(truth(10, 40, 5), 10, 0))
    assert not d.read_into(b) and [m.value for m in b.marks] == [900]


def test_an_end_stop_marks_the_block_clipped():
    x = truth(0, 40, 5)
    x[7, 3] = 0x7FFFFF
    d = decoder()
    d.feed(encode(np.clip(truth(100, 40, 5), -8_000_000, 8_000_000), 100, 0))
    assert not drain(d)[0].gap & Gap.CLIPPED
    d.begin(SESSION + 1, BOOT + 1)
    d.feed(encode(x, 0, 0, session=SESSION + 1, boot=BOOT + 1))
    assert drain(d)[0].gap & Gap.CLIPPED


def test_a_full_ring_refuses_the_newest_transfer_and_the_loss_shows_as_a_gap():
    d = decoder(ring_bytes=4096)
    stored = [d.feed(encode(truth(40 * i, 40, 5), 40 * i, i)) for i in range(12)]
    kept = sum(stored)
    assert stored == sorted(stored, reverse=True) and 0 < kept < 12
    blocks = drain(d)
    d.feed(encode(truth(480, 40, 5), 480, 12))
    blocks += drain(d)
    assert check(blocks) == (40 * kept + 40, 40 * (12 - kept))
    assert d.counters()["ring_lost_transfers"] == 12 - kept
    assert d.counters()["seq_holes"] == 12 - kept


def test_sequence_numbers_wrap():
    d = decoder()
    d.feed(encode(truth(0, 40, 5), 0, 0))
    d.feed(encode(truth(40, 40, 5), 40, 0xFFFFFFFF))  # an old one by its number, but new samples
    d.feed(encode(truth(80, 40, 5), 80, 1))
    assert check(drain(d))[0] >= 80


def test_a_block_of_the_wrong_shape_is_refused():
    d = decoder()
    with pytest.raises(ValueError, match="4 inputs"):
        d.read_into(Block(10, 4, 1000.0))
    wrong = Block(10, 5, 1000.0)
    wrong.uv = np.zeros((5, 16), np.float32)
    with pytest.raises(ValueError, match="shape"):
        d.read_into(wrong)


@st.composite
def journeys(draw):
    """Blocks of a device, and what happens to them on the way: (bytes to feed, samples that must come, in order)."""
    n_blocks = draw(st.integers(1, 14))
    sizes = draw(st.lists(st.integers(1, 90), min_size=n_blocks, max_size=n_blocks))
    fate_of = st.sampled_from(["ok", "ok", "ok", "drop", "twice", "flip", "late"])
    fates = draw(st.lists(fate_of, min_size=n_blocks, max_size=n_blocks))
    first = draw(st.integers(0, 1 << 40))
    out: list[bytes] = []
    known: list[tuple[int, int]] = []
    late: list[tuple[bytes, int, int]] = []
    for i, (n, fate) in enumerate(zip(sizes, fates, strict=True)):
        blob = encode(truth(first, n, 5), first, i)
        if fate in ("ok", "twice"):
            out += [blob] * (2 if fate == "twice" else 1)
            known.append((first, n))
        elif fate == "flip":
            bad = bytearray(blob)
            bit = draw(st.integers(0, 8 * len(blob.rstrip(b"\0")) - 1))
            bad[bit // 8] ^= 1 << bit % 8
            out.append(bytes(bad))
        elif fate == "late":
            late.append((blob, first, n))
        out_now = late and draw(st.booleans())
        if out_now:
            b, f, k = late.pop(0)
            out.append(b)
            if not known or f > known[-1][0]:
                known.append((f, k))
        first += n
    return out, known, draw(st.integers(1, 64))


@settings(max_examples=150, deadline=None)
@given(journeys())
def test_drops_duplicates_reorders_and_bit_flips_never_invent_samples_and_losses_are_exact(journey):
    transfers, known, capacity = journey
    d = decoder()
    blocks = []
    for t in transfers:
        assert d.feed(t)
        blocks += drain(d, capacity=capacity)
    joined: list[int] = []
    for b in blocks:
        joined += range(b.first, b.first + b.n)
    assert joined == [s for f, n in known for s in range(f, f + n)]
    samples, lost = check(blocks)
    assert samples == len(joined)
    if joined:
        assert lost == joined[-1] + 1 - joined[0] - len(joined)
        assert d.counters()["lost_samples"] == lost


@settings(max_examples=150, deadline=None)
@given(st.lists(st.integers(1, 80), min_size=1, max_size=8), st.lists(st.integers(1, 3000), min_size=1, max_size=30))
def test_any_cut_of_the_byte_stream_gives_the_same_rows(sizes, cuts):
    stream, first = b"", 0
    for i, n in enumerate(sizes):
        stream += encode(truth(first, n, 5), first, i)
        first += n
    d = decoder()
    at, k = 0, 0
    while at < len(stream):
        d.feed(stream[at : at + cuts[k % len(cuts)]])
        at += cuts[k % len(cuts)]
        k += 1
    assert check(drain(d)) == (first, 0)
    assert d.counters()["bad_frames"] == 0


@settings(max_examples=300, deadline=None)
@given(st.lists(st.binary(max_size=900), max_size=8), st.integers(0, 7))
def test_rubbish_never_crashes_and_the_next_good_block_is_read(rubbish, where):
    d = decoder()
    for blob in rubbish[:where]:
        d.feed(blob)
    drain(d)
    d.feed(encode(truth(40, 40, 5), 40, 0))
    d.feed(encode(truth(80, 40, 5), 80, 1))
    assert check(drain(d))[0] == 80
    for blob in rubbish[where:]:
        d.feed(blob)
    assert not drain(d)
