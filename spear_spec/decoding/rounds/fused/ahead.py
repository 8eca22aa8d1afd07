# mypy: disallow-untyped-defs=False, no-check-untyped-defs
"""A draft decoder of one layer that runs ahead on its own tokens: all steps of a row in one program.

A vector that every thread of the program needs goes through a page of memory (`notes`): written by parts, a barrier,
read whole. A page is written once a step, so whoever still reads it has passed other barriers before it changes. All is
computed in the law's dtype, whatever the weights are kept in.
"""

from __future__ import annotations

import triton
import triton.language as tl

from spear_spec.decoding.rounds.fused.kernels import draw, lawful

# pages of a row's notes, see `chain`
ENTERED, QKV, SAW, OWN, ASKED, READ, TEXT, UP, DOWN, LOGITS, PAGES = (tl.constexpr(page) for page in range(11))


@triton.jit
def unit(x):
    """x [R, N] of length 1."""
    return x / tl.sqrt(tl.sum(x * x, 1))[:, None]


@triton.jit
def product(x, weight, page, here, OUT: tl.constexpr, IN: tl.constexpr, TILE: tl.constexpr):
    """x [R, N] times a weight [OUT, IN], onto the page [R] of each row; N is at least IN, and x 0 behind it."""
    width: tl.constexpr = x.shape[1]
    some: tl.constexpr = TILE // width  # of the weight's rows at a time
    inner = tl.arange(0, width)[None, None, :]
    for first in tl.range(0, OUT, some, num_stages=3):
        outer = first + tl.arange(0, some)
        line = outer[None, :, None]
        tile = tl.load(weight + line * IN + inner, mask=(line < OUT) & (inner < IN), other=0.0).to(x.dtype)
        found = tl.sum(tile * x[:, None, :], 2)
        tl.store(page[:, None] + outer[None, :], found, mask=here[:, None] & (outer < OUT)[None, :])
    tl.debug_barrier()


@triton.jit
def read(page, column, SIZE: tl.constexpr, here):
    """The first SIZE numbers of the page [R] of each row that is here, 0 behind them: [R, N] for column [1, N]."""
    return tl.load(page[:, None] + column, mask=here[:, None] & (column < SIZE), other=0.0)


@triton.jit
def turned(page, turns, column, SIZE: tl.constexpr, here):
    """As `read`, neighbouring pairs turned by the angles whose cosines and sines lie at turns [R] in turn."""
    pair = column // 2 * 2
    inside = here[:, None] & (column < SIZE)
    cosine = tl.load(turns[:, None] + pair, mask=inside, other=0.0)
    sine = tl.load(turns[:, None] + pair + 1, mask=inside, other=0.0)
    mine = tl.load(page[:, None] + column, mask=inside, other=0.0)
    other = tl.load(page[:, None] + pair + 1 - column % 2, mask=inside, other=0.0)
    return mine * cosine + tl.where(column % 2 == 0, -other, other) * sine


@triton.jit
def look(
    q,
    keys,
    values,
    stride,
    lengths,
    bias,
    BIASED: tl.constexpr,
    SIZE: tl.constexpr,
    SCALE: tl.constexpr,
    TILE: tl.constexpr,
):
    """Attention of one query each, q [A, N], on keys and values [A]: the first lengths [A] lines of SIZE, `stride` from
    one to the next. Each sees the first of all. BIASED: with what lies at bias [A] added to the scores.
    """
    some: tl.constexpr = max(TILE // (q.shape[0] * q.shape[1]), 1)  # lines at a time
    inner = tl.arange(0, q.shape[1])[None, None, :]
    top = tl.max(q, 1) * 0.0 - float("inf")
    whole = tl.zeros_like(top)
    seen = tl.zeros_like(q)
    for first in range(0, tl.max(lengths, 0), some):
        place = (first + tl.arange(0, some))[None, :]
        there = place < lengths[:, None]
        at = place[:, :, None] * stride + inner
        inside = there[:, :, None] & (inner < SIZE)
        key = tl.load(keys[:, None, None] + at, mask=inside, other=0.0).to(q.dtype)
        scores = tl.sum(key * q[:, None, :], 2) * SCALE
        if BIASED:
            scores += tl.load(bias[:, None] + place, mask=there, other=0.0).to(q.dtype)
        scores = tl.where(there, scores, float("-inf"))
        higher = tl.maximum(top, tl.max(scores, 1))
        less = tl.exp(top - higher)
        weights = tl.exp(scores - higher[:, None])
        value = tl.load(values[:, None, None] + at, mask=inside, other=0.0).to(q.dtype)
        seen = seen * less[:, None] + tl.sum(value * weights[:, :, None], 1)
        whole = whole * less + tl.sum(weights, 1)
        top = higher
    return seen / whole[:, None]


@triton.jit(do_not_specialize=["rows", "gamma", "width", "slots", "eos"])
def chain(
    hidden,
    lengths,
    limits,
    uniforms,
    temperature,
    top_k,
    top_p,
    table,
    enter,
    to_qkv,
    self_out,
    to_q,
    cross_out,
    up,
    up_bias,
    down,
    down_bias,
    head,
    keys,
    values,
    key_row,
    key_head,
    key_line,
    turns,
    text_keys,
    text_values,
    text_row,
    text_head,
    text_line,
    bias,
    bias_row,
    notes,
    tokens,
    counts,
    laws,
    fine,
    rows,
    gamma,
    width,
    slots,
    eos,
    FED: tl.constexpr,
    DIM: tl.constexpr,
    HEADS: tl.constexpr,
    SIZE: tl.constexpr,
    INNER: tl.constexpr,
    LINE: tl.constexpr,
    IDS: tl.constexpr,
    PAGE: tl.constexpr,
    SCALE: tl.constexpr,
    TINY: tl.constexpr,
    FROZEN: tl.constexpr,
    TOP_K: tl.constexpr,
    TOP_P: tl.constexpr,
    GREEDY: tl.constexpr,
    REAL: tl.constexpr,
    WHOLE: tl.constexpr,
    BITS: tl.constexpr,
    R: tl.constexpr,
    WIDE: tl.constexpr,
    H: tl.constexpr,
    N: tl.constexpr,
    M: tl.constexpr,
    B: tl.constexpr,
    TILE: tl.constexpr,
):
    """At most limits [rows] tokens behind hidden [rows, DIM], what the decoder made of the newest token.

    Its cache holds lengths [rows] lines of each row, and is given one for each token of the chain but the last.
    key_row, key_head, key_line (text_..., bias_row): from one row, head or line to the next. notes [rows, PAGES, PAGE].
    R rows a program; WIDE (of DIM and HEADS * SIZE), H, N (of SIZE), M (of INNER) and B (of IDS) are powers of two, no
    smaller; LINE is a line of `down`, INNER and what fills it up. TILE: numbers that are read at a time. `chain.Ahead`
    says what the weights are.
    """
    row = (tl.program_id(0) * R + tl.arange(0, R)).to(tl.int64)
    here = row < rows
    page = notes + row * (PAGES * PAGE)
    wide = tl.arange(0, WIDE)[None, :]
    # the heads of all rows, one behind the other
    lane = tl.arange(0, R * H)
    owner = (tl.program_id(0) * R + lane // H).to(tl.int64)
    which = lane % H
    lanes = (owner < rows) & (which < HEADS)
    lane_page = notes + owner * (PAGES * PAGE) + which * SIZE
    narrow = tl.arange(0, N)[None, :]
    in_lane = lanes[:, None] & (narrow < SIZE)
    own_keys = keys + owner * key_row + which * key_head
    own_values = values + owner * key_row + which * key_head
    its_keys = text_keys + owner * text_row + which * text_head
    its_values = text_values + owner * text_row + which * text_head
    its_bias = bias + owner * bias_row
    known = tl.load(lengths + owner, mask=lanes, other=0)
    its_length = tl.where(lanes, slots, 1)
    middle = tl.arange(0, M)[None, :]
    in_middle = middle < INNER
    column = tl.arange(0, B)
    real = (column < IDS)[None, :]

    limit = tl.load(limits + row, mask=here, other=0)
    for place in range(gamma):
        tl.store(tokens + row * gamma + place, tl.zeros_like(row), mask=here)
    going = here & (limit > 0)
    good = here
    drawn = tl.zeros_like(row)
    token = tl.zeros_like(row)
    x = tl.load(hidden + row[:, None] * DIM + wide, mask=here[:, None] & (wide < DIM), other=0.0).to(REAL)
    for place in range(tl.max(limit, 0)):
        if place > 0:  # the decoder reads the token before
            vector = tl.load(table + token[:, None] * DIM + wide, mask=here[:, None] & (wide < DIM), other=0.0).to(REAL)
            if FED:
                size = tl.sqrt(tl.sum(x * x, 1))
                x = x / tl.maximum(size, TINY)[:, None]
                product(x, enter, page + ENTERED * PAGE, here, DIM, DIM, TILE)
                vector += read(page + ENTERED * PAGE, wide, DIM, here)
            x = vector
            product(unit(x), to_qkv, page + QKV * PAGE, here, 3 * HEADS * SIZE, DIM, TILE)
            at = known + place - 1
            angles = turns + at * SIZE
            q = turned(lane_page + QKV * PAGE, angles, narrow, SIZE, lanes)
            k = turned(lane_page + QKV * PAGE + HEADS * SIZE, angles, narrow, SIZE, lanes)
            v = read(lane_page + QKV * PAGE + 2 * HEADS * SIZE, narrow, SIZE, lanes)
            tl.store(own_keys[:, None] + at[:, None] * key_line + narrow, k, mask=in_lane)
            tl.store(own_values[:, None] + at[:, None] * key_line + narrow, v, mask=in_lane)
            tl.debug_barrier()
            saw = look(q, own_keys, own_values, key_line, at + 1, its_bias, False, SIZE, SCALE, TILE)
            tl.store(lane_page[:, None] + SAW * PAGE + narrow, saw, mask=in_lane)
            tl.debug_barrier()
            saw = read(page + SAW * PAGE, wide, HEADS * SIZE, here)
            product(saw, self_out, page + OWN * PAGE, here, DIM, HEADS * SIZE, TILE)
            x += read(page + OWN * PAGE, wide, DIM, here)

            product(unit(x), to_q, page + ASKED * PAGE, here, HEADS * SIZE, DIM, TILE)
            q = read(lane_page + ASKED * PAGE, narrow, SIZE, lanes)
            saw = look(q, its_keys, its_values, text_line, its_length, its_bias, True, SIZE, SCALE, TILE)
            tl.store(lane_page[:, None] + READ * PAGE + narrow, saw, mask=in_lane)
            tl.debug_barrier()
            saw = read(page + READ * PAGE, wide, HEADS * SIZE, here)
            product(saw, cross_out, page + TEXT * PAGE, here, DIM, HEADS * SIZE, TILE)
            x += read(page + TEXT * PAGE, wide, DIM, here)

            product(unit(x), up, page + UP * PAGE, here, 2 * INNER, DIM, TILE)
            value = read(page + UP * PAGE, middle, INNER, here)
            value += tl.load(up_bias + middle, mask=in_middle, other=0.0).to(REAL)
            gate = read(page + UP * PAGE + INNER, middle, INNER, here)
            gate += tl.load(up_bias + INNER + middle, mask=in_middle, other=0.0).to(REAL)
            value *= 0.5 * gate * (1.0 + tl.erf(gate * 0.7071067811865476))
            product(value, down, page + DOWN * PAGE, here, DIM, LINE, TILE)
            x += read(page + DOWN * PAGE, wide, DIM, here)
            x += tl.load(down_bias + wide, mask=wide < DIM, other=0.0).to(REAL)

        product(unit(x), head, page + LOGITS * PAGE, here, IDS, DIM, TILE)
        logits = read(page + LOGITS * PAGE, column[None, :], IDS, here)
        good = good & ((tl.abs(tl.sum(logits, 1)) < float("inf")) | (going == 0))
        found = lawful(
            logits, real, temperature + row, top_k + row, top_p + row, here, column, IDS,
            FROZEN, TOP_K, TOP_P, GREEDY, REAL, WHOLE, BITS, B,
        )  # fmt: skip
        tl.store(laws + (row * gamma + place)[:, None] * IDS + column[None, :], found, mask=here[:, None] & real)
        u = tl.load(uniforms + row * width + place, mask=here, other=0.0)
        token = draw(found, u, column, B).to(tl.int64)
        tl.store(tokens + row * gamma + place, token, mask=going)
        drawn += going.to(tl.int64)
        going = going & (token != eos) & (place + 1 < limit)  # nothing follows an end token
    tl.store(counts + row, drawn, mask=here)
    tl.store(fine + row, good, mask=here)
