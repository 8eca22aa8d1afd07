# mypy: disallow-untyped-defs=False, no-check-untyped-defs
"""The kernels: a program has whole rows, a row is a law over V tokens in registers.

On a GPU a program has one row; in Triton's interpreter, where every operation costs the same whatever its size, as many
as there are. Nothing is read by the host and nothing is tuned, so what was compiled at warm-up is what is captured.
"""

from __future__ import annotations

import triton
import triton.language as tl

# rules, see `verify`
BLOCK = tl.constexpr(0)
REJECTION = tl.constexpr(1)
MATCHING = tl.constexpr(2)


@triton.jit
def largest(weights, bits, mass, BITS: tl.constexpr):
    """The largest t [R] for which the weights [R, B] of all whose bits are at least t sum to more than mass [R]; 0
    where none is. Two bits of t a step: bits of floats that are not negative are in their order.
    """
    digit = tl.arange(0, 4)[None, :].to(bits.dtype)
    found = tl.zeros_like(mass).to(bits.dtype)
    for step in range(BITS // 2):
        shift = BITS - 2 - 2 * step
        tried = found[:, None] + (digit << shift)
        above = tl.sum(tl.where(bits[:, None, :] >= tried[:, :, None], weights[:, None, :], 0.0), 2)
        good = (above > mass[:, None]) & (digit > 0)
        found += tl.sum(good.to(bits.dtype), 1) << shift
    return found


@triton.jit
def draw(weights, u, column, B: tl.constexpr):
    """The first token of weight whose running sum, in float64, exceeds u times the whole: `tensors.categorical`. Sums
    of a scan need not rise with every token, so one of weight 0 is passed over by itself. 0 for weights that are none.
    """
    table = tl.cumsum(weights.to(tl.float64), 1)
    aim = u * tl.max(table, 1)
    there = weights > 0
    first = tl.min(tl.where(there & (table > aim[:, None]), column[None, :], B), 1)
    return tl.minimum(first, tl.max(tl.where(there, column[None, :], 0), 1))


@triton.jit
def lawful(
    x,
    real,
    temperature,
    top_k,
    top_p,
    here,
    column,
    ids,
    FROZEN: tl.constexpr,
    TOP_K: tl.constexpr,
    TOP_P: tl.constexpr,
    GREEDY: tl.constexpr,
    REAL: tl.constexpr,
    WHOLE: tl.constexpr,
    BITS: tl.constexpr,
    B: tl.constexpr,
):
    """`laws.Law` of logits x [R, B], `ids` of which are real [1, B], by settings that lie at these pointers [R].

    Top-p and top-k without a sort: the smallest probability that survives is found bit by bit (`largest`).
    """
    x = tl.where(real, x, float("-inf"))
    top = tl.max(x, 1)
    heat = tl.load(temperature, mask=here, other=1.0)
    cold = heat <= FROZEN
    weights = tl.exp((x - top[:, None]) / tl.where(cold, 1.0, heat).to(REAL)[:, None])
    found = weights / tl.sum(weights, 1)[:, None]
    if TOP_K or TOP_P:
        bits = tl.where(real, found.to(WHOLE, bitcast=True), -1)
        doubles = found.to(tl.float64)
        mass = tl.load(top_p, mask=here, other=1.0)
        mass = tl.where(mass >= 1, 2.0, mass)  # no sum comes near it
        if TOP_K:
            k = tl.load(top_k, mask=here, other=0)
            some = k > 0
            count = tl.where(some, tl.minimum(k, ids), ids).to(tl.float64)
            ones = tl.zeros_like(doubles) + 1.0
            last = largest(ones, bits, count - 0.5, BITS)  # the smallest of the k
            least = last
            if TOP_P:  # of the mass of the k, of those tied with the last no more than belong to them
                before = bits > last[:, None]
                sum_before = tl.sum(tl.where(before, doubles, 0.0), 1)
                count_before = tl.sum(tl.where(before, 1.0, 0.0).to(tl.float64), 1)
                kept = sum_before + (count - count_before) * last.to(REAL, bitcast=True).to(tl.float64)
                mass = tl.where(some, kept * mass, mass)
                least = tl.maximum(last, largest(doubles, bits, mass, BITS))
        else:
            least = largest(doubles, bits, mass, BITS)
        found = tl.where(bits >= least[:, None], found, 0.0)
        found = found / tl.sum(found, 1)[:, None]
    if GREEDY:
        best = tl.min(tl.where(x == top[:, None], column[None, :], B), 1)
        found = tl.where(cold[:, None], (column[None, :] == best[:, None]).to(REAL), found)
    return found


@triton.jit(do_not_specialize=["rows", "places", "width", "number"])  # one for every batch and place of a chain
def law(
    logits,
    temperature,
    top_k,
    top_p,
    uniforms,
    laws,
    tokens,
    totals,
    rows,
    ids,
    places,
    width,
    number,
    FROZEN: tl.constexpr,
    TOP_K: tl.constexpr,
    TOP_P: tl.constexpr,
    GREEDY: tl.constexpr,
    DRAW: tl.constexpr,
    REAL: tl.constexpr,
    WHOLE: tl.constexpr,
    BITS: tl.constexpr,
    R: tl.constexpr,
    B: tl.constexpr,
):
    """`laws.Law` of logits [rows, ids], `places` of them for each row of the settings; with DRAW also the token that
    number `number` of the row's uniforms [rows, width] draws.
    """
    row = tl.program_id(0) * R + tl.arange(0, R)
    here = row < rows
    column = tl.arange(0, B)
    real = (column < ids)[None, :]
    at = row.to(tl.int64)[:, None] * ids + column[None, :]
    inside = here[:, None] & real
    x = tl.load(logits + at, mask=inside, other=0.0).to(REAL)
    tl.store(totals + row, tl.sum(x, 1), mask=here)
    owner = row // places
    found = lawful(
        x, real, temperature + owner, top_k + owner, top_p + owner, here, column, ids,
        FROZEN, TOP_K, TOP_P, GREEDY, REAL, WHOLE, BITS, B,
    )  # fmt: skip
    tl.store(laws + at, found, mask=inside)
    if DRAW:
        u = tl.load(uniforms + row.to(tl.int64) * width + number, mask=here, other=0.0)
        tl.store(tokens + row, draw(found, u, column, B).to(tl.int64), mask=here)


@triton.jit(do_not_specialize=["rows", "width", "gamma"])
def verify(
    tokens,
    counts,
    q,
    p,
    uniforms,
    settled,
    accepted,
    used,
    rows,
    ids,
    width,
    gamma,
    RULE: tl.constexpr,
    SHARES: tl.constexpr,
    REAL: tl.constexpr,
    R: tl.constexpr,
    B: tl.constexpr,
):
    """`SettlingVerifier.settle` of a rule, of tokens [rows, gamma], counts [rows], q [rows, gamma, ids] and p [rows,
    gamma + 1, ids], with uniforms [rows, width]: the rule's own begin behind the draft's, or with SHARES with them.
    """
    row = (tl.program_id(0) * R + tl.arange(0, R)).to(tl.int64)
    here = row < rows
    column = tl.arange(0, B)
    inside = here[:, None] & (column < ids)[None, :]
    count = tl.load(counts + row, mask=here, other=0)
    numbers = uniforms + row * width
    if not SHARES:
        numbers += count
    drafted = tokens + row * gamma
    p_row = p + row[:, None] * (gamma + 1) * ids + column[None, :]
    q_row = q + row[:, None] * gamma * ids + column[None, :]
    keeps = tl.zeros_like(count)
    if RULE == MATCHING:
        last = tl.zeros_like(count)
        going = here
        for i in range(gamma + 1):
            law_here = tl.load(p_row + i * ids, mask=inside & going[:, None], other=0.0)
            said = draw(law_here, tl.load(numbers + i, mask=going, other=0.0), column, B)
            last = tl.where(going, said.to(tl.int64), last)
            token = tl.load(drafted + i, mask=going & (i < count), other=-1)
            going = going & (i < count) & (last == token)
            keeps += going.to(tl.int64)
        consumed = keeps + 1
    else:
        ratio = tl.zeros_like(count).to(tl.float64) + 1.0  # r_i of the block rule
        ratio_kept = ratio
        going = here
        for i in range(gamma):
            valid = here & (i < count)
            token = tl.load(drafted + i, mask=valid, other=0)
            p_at = tl.load(p + (row * (gamma + 1) + i) * ids + token, mask=valid, other=1.0)
            q_at = tl.load(q + (row * gamma + i) * ids + token, mask=valid, other=1.0)
            if RULE == REJECTION:
                # a token that q cannot have produced is kept where p can; 0 / 0 never
                chance = tl.where(q_at > 0, p_at / tl.where(q_at > 0, q_at, 1.0), (p_at > 0).to(REAL))
                u = tl.load(numbers + i, mask=valid, other=1.0)
                going = going & valid & (u < tl.minimum(chance, 1.0).to(tl.float64))
                keeps += going.to(tl.int64)
            else:
                wide = q_at.to(tl.float64)
                step = tl.where(
                    wide > 0, p_at.to(tl.float64) / tl.where(wide > 0, wide, 1.0), (p_at > 0).to(tl.float64)
                )
                ratio = tl.minimum(ratio * step, 1.0)
                more = inside & (i + 1 < count)[:, None]
                ahead = tl.load(p_row + (i + 1) * ids, mask=more, other=0.0) * ratio.to(REAL)[:, None]
                excess = tl.sum(tl.maximum(ahead - tl.load(q_row + (i + 1) * ids, mask=more, other=0.0), 0.0), 1)
                excess = excess.to(tl.float64)
                whole = excess + (1.0 - ratio)
                chance = tl.where(whole > 0, excess / tl.where(whole > 0, whole, 1.0), 1.0)
                chance = tl.where(i + 1 == count, ratio, chance)
                u = tl.load(numbers + (count - i - 1), mask=valid, other=1.0)  # longer ones are tried first
                success = valid & (u < chance)
                keeps = tl.where(success, i + 1, keeps)
                ratio_kept = tl.where(success, ratio, ratio_kept)
        if RULE == REJECTION:
            trials = tl.minimum(keeps + 1, count)
        else:
            trials = count - keeps + (keeps > 0).to(tl.int64)
        rejected = keeps < count
        weights = tl.load(p_row + keeps[:, None] * ids, mask=inside, other=0.0)
        guess = tl.load(q_row + keeps[:, None] * ids, mask=inside & rejected[:, None], other=0.0)
        if RULE == BLOCK:
            weights = weights * tl.where(rejected, ratio_kept, 1.0).to(REAL)[:, None]
        rest = tl.maximum(weights - guess, 0.0)
        rest = tl.where((rejected & (tl.sum(rest, 1) > 0))[:, None], rest, weights)
        last = draw(rest, tl.load(numbers + trials, mask=here, other=0.0), column, B).to(tl.int64)
        consumed = trials + 1
    if not SHARES:
        consumed += count
    tl.store(accepted + row, keeps, mask=here)
    tl.store(used + row, consumed, mask=here)
    for i in range(gamma + 1):
        token = tl.load(drafted + i, mask=here & (i < keeps), other=-1)
        tl.store(settled + row * (gamma + 1) + i, tl.where(keeps == i, last, token), mask=here)
