/* The vocoder for vectors of LANES floats: vocoder.c includes this once for each width, with TARGET (an attribute), the
   names NAMED(x) and EACH(f, a): f(0, a), ..., f(LANES - 1, a). */

#include "elementary_lanes.h"
#include "fourier_lanes.h"

/* Layer norm of a row [dim]; y may be x. */
INLINE TARGET void NAMED(normalise)(const struct norm *norm, int64_t dim, const float *x, float *y)
{
    NAMED(lanes) sum = {0}, squares = {0};
    for (int64_t i = 0; i < dim; i += LANES) sum += NAMED(load)(x + i);
    const float mean = NAMED(total)(sum) / (float)dim;
    for (int64_t i = 0; i < dim; i += LANES) {
        const NAMED(lanes) apart = NAMED(load)(x + i) - mean;
        squares += apart * apart;
    }
    const float by = 1 / sqrtf(NAMED(total)(squares) / (float)dim + 1e-5f);
    for (int64_t i = 0; i < dim; i += LANES) {
        const NAMED(lanes) apart = (NAMED(load)(x + i) - mean) * by;
        NAMED(store)(y + i, apart * NAMED(load)(norm->gain + i) + NAMED(load)(norm->bias + i));
    }
}

/* Rows `in` [rows][dim], behind which there is room for `right` more, through a block: see `BlockStream`. There is room
   for kernel - 1 rows before them too. context [kernel - 1][dim]: the inputs that the next output still needs, *kept of
   them. Gives the number of rows that it wrote to `out`. */
TARGET static int64_t NAMED(block)(const struct vocoder *v, const struct context_block *block, int64_t dim,
                                   float *context, int64_t *kept, float *in, int64_t rows, int last,
                                   const struct scratch *scratch, float *out)
{
    const int64_t kernel = v->kernel, left = kernel - 1 - block->right, inner = block->up.weight.out;
    const float *padded = in - *kept * dim;
    memcpy(in - *kept * dim, context, (size_t)(*kept * dim) * sizeof *in);
    if (last) {
        memset(in + rows * dim, 0, (size_t)(block->right * dim) * sizeof *in);
        rows += block->right;
    }
    rows += *kept;
    const int64_t count = rows < kernel ? 0 : rows - kernel + 1;
    for (int64_t first = 0; first < count; first += TILE) {
        const int64_t some = count - first < TILE ? count - first : TILE;
        for (int64_t r = 0; r < some; r++) {
            const float *from = padded + (first + r) * dim;
            float *mixed = scratch->normed + r * dim;
            for (int64_t i = 0; i < dim; i += LANES) {
                NAMED(lanes) sum = NAMED(load)(from + i) * NAMED(load)(block->taps + i);
                for (int64_t tap = 1; tap < kernel; tap++)
                    sum += NAMED(load)(from + tap * dim + i) * NAMED(load)(block->taps + tap * dim + i);
                NAMED(store)(mixed + i, sum);
            }
            NAMED(normalise)(&block->norm, dim, mixed, mixed);
        }
        float *wide = scratch->wide, *to = out + first * dim;
        apply(&block->up, some, scratch->normed, wide);
        for (int64_t i = 0; i < some * inner; i += LANES) NAMED(store)(wide + i, NAMED(gelu)(NAMED(load)(wide + i)));
        apply(&block->down, some, wide, to);
        const float *middle = padded + (first + left) * dim;
        for (int64_t r = 0; r < some; r++, to += dim, middle += dim)
            for (int64_t i = 0; i < dim; i += LANES)
                NAMED(store)(to + i, NAMED(load)(to + i) * NAMED(load)(block->scale + i) + NAMED(load)(middle + i));
    }
    *kept = rows - count;
    memcpy(context, padded + count * dim, (size_t)(*kept * dim) * sizeof *in);
    return count;
}

/* `drive` and `excite` between two frames' centres: pulses, noise cos and noise sin for each of hop samples of noise,
   the first of them `skip` samples behind the earlier centre (its phase and F0; F0 of the later).

   All four lie in buffers with room for LANES more. */
TARGET static void NAMED(drive)(const struct vocoder *v, double phase, float f0, float later, int64_t skip,
                                int64_t count, const float *noise, float *pulses, float *by_cosine, float *by_sine)
{
    const double slope = TWO_PI * (double)v->hop / v->sample_rate;
    const double first = slope * f0, bend = 0.5 * slope * ((double)later - f0), rise = (double)later - f0;
    const float nyquist = (float)(0.49 * v->sample_rate);
    for (int64_t i = 0; i < count; i += LANES) {
        NAMED(fewer) parts[4];
        for (int half = 0; half < 2; half++) {
            NAMED(fewer) ramp;
            memcpy(&ramp, RAMP, sizeof ramp);
            const NAMED(doubles) along = __builtin_convertvector(ramp, NAMED(doubles));
            const NAMED(doubles) t = (along + (double)(skip + i + half * LANES / 2)) / (double)v->hop;
            const NAMED(doubles) angle = t * (t * bend + first) + phase;
            const NAMED(fewer_integers) turns = __builtin_convertvector(angle * (1 / TWO_PI), NAMED(fewer_integers));
            const NAMED(doubles) whole = __builtin_convertvector(turns, NAMED(doubles));
            parts[half] = __builtin_convertvector(angle - whole * TWO_PI, NAMED(fewer));
            parts[2 + half] = __builtin_convertvector(t * rise + (double)f0, NAMED(fewer));
        }
        NAMED(lanes) angle, pitch;
        memcpy(&angle, parts, sizeof angle);
        memcpy(&pitch, parts + 2, sizeof pitch);
        const NAMED(lanes) highest = nyquist / pitch; /* harmonic */
        const NAMED(lanes) whole = __builtin_convertvector(__builtin_convertvector(highest, NAMED(integers)), NAMED(lanes));
        NAMED(lanes) half, sine, cosine, upper, next, unused;
        NAMED(circle)(0.5f * angle, &half, &unused);
        NAMED(circle)((whole + 0.5f) * angle, &upper, &unused);
        NAMED(circle)((whole + 1) * angle, &unused, &next);
        NAMED(circle)(angle, &sine, &cosine);
        const NAMED(lanes) zero = {0}, tiny = zero + 1e-4f;
        const NAMED(integers) small = (half < tiny) & (half > -tiny);
        NAMED(lanes) sum = upper / NAMED(where)(small, zero + 1, 2 * half) - 0.5f; /* Dirichlet's kernel */
        sum = NAMED(where)(small, whole, sum) + (highest - whole) * next;
        const NAMED(lanes) white = NAMED(load)(noise + i);
        NAMED(store)(pulses + i, sum * NAMED(root)(2 / highest));
        NAMED(store)(by_cosine + i, white * cosine);
        NAMED(store)(by_sine + i, white * sine);
    }
}

/* What the head says of bin i for LANES frames, applied to the spectra there. even, odd: the transforms of pulses + i
   noise and noise cos + i noise sin, in a lane a frame, at this bin and at its mirror image. */
INLINE TARGET NAMED(complex) NAMED(filter)(const NAMED(lanes) said[5], const NAMED(complex) *even,
                                           const NAMED(complex) *even_mirror, const NAMED(complex) *odd,
                                           const NAMED(complex) *odd_mirror)
{
    NAMED(lanes) sine, cosine;
    NAMED(circle)(said[1], &sine, &cosine);
    const NAMED(lanes) size = NAMED(exponential)(NAMED(between)(said[0], -14, 4));
    const NAMED(lanes) hiss = NAMED(exponential)(NAMED(between)(said[2], -14, 4));
    const NAMED(lanes) swell_cosine = 2 * NAMED(tangent)(said[3]), swell_sine = 2 * NAMED(tangent)(said[4]);
    /* twice each spectrum; the window holds the half */
    const NAMED(complex) pulses = {even->re + even_mirror->re, even->im - even_mirror->im};
    const NAMED(complex) steady = {even->im + even_mirror->im, even_mirror->re - even->re};
    const NAMED(complex) by_cosine = {odd->re + odd_mirror->re, odd->im - odd_mirror->im};
    const NAMED(complex) by_sine = {odd->im + odd_mirror->im, odd_mirror->re - odd->re};
    const NAMED(lanes) re = steady.re + swell_cosine * by_cosine.re + swell_sine * by_sine.re;
    const NAMED(lanes) im = steady.im + swell_cosine * by_cosine.im + swell_sine * by_sine.im;
    return (NAMED(complex)){size * (pulses.re * cosine - pulses.im * sine) + hiss * re,
                            size * (pulses.re * sine + pulses.im * cosine) + hiss * im};
}

/* Windowed signal a + i b of up to LANES frames, hop apart, a frame in each lane. */
INLINE TARGET void NAMED(gather)(const struct vocoder *v, int64_t frames, const float *a, const float *b,
                                 NAMED(complex) *x)
{
    for (int64_t i = 0; i < v->n_fft; i += LANES) {
        NAMED(lanes) re[LANES], im[LANES];
        for (int64_t f = 0; f < LANES; f++) {
            const int64_t at = (f < frames ? f : frames - 1) * v->hop + i;
            re[f] = NAMED(load)(a + at);
            im[f] = NAMED(load)(b + at);
        }
        NAMED(transpose)(re);
        NAMED(transpose)(im);
        const int64_t some = v->n_fft - i < LANES ? v->n_fft - i : LANES;
        for (int64_t j = 0; j < some; j++) {
            const float by = 0.5f * v->window[i + j];
            x[i + j] = (NAMED(complex)){re[j] * by, im[j] * by};
        }
    }
}

/* `SpectralHead.frames` of up to LANES frames: what the head says [frames][5 bins] to windowed output [frames][n_fft],
   of which LANES and a little more than n_fft are written. */
TARGET static void NAMED(shape)(const struct vocoder *v, int64_t frames, const float *said, const float *pulses,
                                const float *noise, const float *by_cosine, const float *by_sine,
                                const struct scratch *scratch, float *out, int64_t out_step)
{
    const int64_t size = v->n_fft, half = size / 2, bins = half + 1;
    NAMED(complex) *one = (NAMED(complex) *)scratch->one, *two = (NAMED(complex) *)scratch->two;
    NAMED(complex) *spare = (NAMED(complex) *)scratch->three, *even, *odd;
    NAMED(gather)(v, frames, pulses, noise, one);
    even = NAMED(fourier)(size, v->roots, 1, one, spare);
    spare = even == one ? spare : one;
    NAMED(gather)(v, frames, by_cosine, by_sine, two);
    odd = NAMED(fourier)(size, v->roots, 1, two, spare);
    NAMED(complex) *spectrum = odd == two ? spare : two;
    for (int64_t first = 0; first < bins; first += LANES) {
        NAMED(lanes) part[5][LANES];
        for (int p = 0; p < 5; p++) {
            for (int64_t f = 0; f < LANES; f++)
                part[p][f] = NAMED(load)(said + (f < frames ? f : frames - 1) * 5 * bins + p * bins + first);
            NAMED(transpose)(part[p]);
        }
        for (int64_t i = first; i < bins && i < first + LANES; i++) {
            const int64_t mirror = i ? size - i : 0;
            const NAMED(lanes) at[5] = {part[0][i - first], part[1][i - first], part[2][i - first], part[3][i - first],
                                        part[4][i - first]};
            spectrum[i] = NAMED(filter)(at, even + i, even + mirror, odd + i, odd + mirror);
        }
    }
    /* back, as the transform of half the length whose even and odd samples are real and imaginary part; a transform
       with both parts exchanged is the inverse one. The imaginary parts of the first and the last bin say nothing. */
    const NAMED(lanes) zero = {0};
    spectrum[0].im = spectrum[half].im = zero;
    NAMED(complex) *x = even, *y = odd;
    for (int64_t i = 0; i < half; i++) {
        const NAMED(complex) a = spectrum[i], b = {spectrum[half - i].re, -spectrum[half - i].im};
        const NAMED(complex) sum = NAMED(plus)(a, b);
        const NAMED(complex) apart = NAMED(times)(NAMED(minus)(a, b), v->roots[2 * i], -v->roots[2 * i + 1]);
        x[i] = (NAMED(complex)){sum.im + apart.re, sum.re - apart.im};
    }
    x = NAMED(fourier)(half, v->roots, 2, x, y);
    const float by = 1.f / (float)size / (0.375f * (float)(size / v->hop)); /* the sum of squared Hann windows */
    for (int64_t i = 0; i < size; i += LANES) {
        NAMED(lanes) part[LANES];
        for (int64_t j = 0; j < LANES; j++) {
            const int64_t at = i + j < size ? i + j : size - 1;
            part[j] = (at % 2 ? x[at / 2].re : x[at / 2].im) * (by * v->window[at]);
        }
        NAMED(transpose)(part);
        for (int64_t f = 0; f < frames; f++) NAMED(store)(out + f * out_step + i, part[f]);
    }
}

/* Overlap-add and output of the frames whose excitation is there; gives the number of samples written. */
TARGET static int64_t NAMED(emit)(const struct vocoder *v, struct stream *s, const struct scratch *scratch, int last,
                                  float *samples)
{
    const int64_t dim = v->dim, hop = v->hop, size = v->n_fft, step = (size + WIDTH - 1) / WIDTH * WIDTH;
    int64_t count = s->driven < size ? 0 : (s->driven - size) / hop + 1, made = 0;
    count = count < s->frames ? count : s->frames;
    for (int64_t first = 0; first < count; first += TILE) {
        const int64_t some = count - first < TILE ? count - first : TILE;
        for (int64_t r = 0; r < some; r++)
            NAMED(normalise)(&v->head_norm, dim, scratch->frames + (first + r) * dim, scratch->normed + r * dim);
        apply(&v->head, some, scratch->normed, scratch->said);
        for (int64_t f = 0; f < some; f += LANES) {
            const int64_t group = some - f < LANES ? some - f : LANES, at = (first + f) * hop;
            NAMED(shape)(v, group, scratch->said + f * v->head.weight.out, scratch->pulses + at, scratch->noise + at,
                         scratch->by_cosine + at, scratch->by_sine + at, scratch, scratch->pieces, step);
            for (int64_t g = 0; g < group; g++) {
                float *tail = scratch->tail;
                for (int64_t i = 0; i < size; i++) tail[i] += scratch->pieces[g * step + i];
                const int64_t drop = s->skip < hop ? s->skip : hop;
                memcpy(samples + made, tail + drop, (size_t)(hop - drop) * sizeof *samples);
                s->skip -= drop;
                made += hop - drop;
                memmove(tail, tail + hop, (size_t)(size - hop) * sizeof *tail);
                memset(tail + size - hop, 0, (size_t)hop * sizeof *tail);
            }
        }
    }
    if (last) {
        const int64_t rest = (size - hop) / 2 - s->skip;
        memcpy(samples + made, scratch->tail + s->skip, (size_t)rest * sizeof *samples);
        made += rest;
    }
    float *kept[] = {scratch->pulses, scratch->noise, scratch->by_cosine, scratch->by_sine};
    for (int k = 0; k < 4; k++)
        memmove(kept[k], kept[k] + count * hop, (size_t)((k == 1 ? s->noise : s->driven) - count * hop) * sizeof(float));
    s->driven -= count * hop;
    s->noise -= count * hop;
    s->frames -= count;
    memmove(scratch->frames, scratch->frames + count * dim, (size_t)(s->frames * dim) * sizeof(float));
    return made;
}

/* Excitation from the newest frame's centre on. */
INLINE TARGET void NAMED(excite)(const struct vocoder *v, struct stream *s, const struct scratch *scratch, float later,
                                 int64_t skip, int64_t count)
{
    const int64_t at = s->driven;
    NAMED(drive)(v, s->phase, s->f0, later, skip, count, scratch->noise + at, scratch->pulses + at,
                 scratch->by_cosine + at, scratch->by_sine + at);
    s->driven += count;
}

/* Excitation up to the centre of a frame with this F0. */
INLINE TARGET void NAMED(sound)(const struct vocoder *v, struct stream *s, const struct scratch *scratch, float f0)
{
    const int64_t hop = v->hop;
    if (!s->begun) { /* F0 is held in the half frame before the first centre */
        s->phase = wrapped(s->phase - TWO_PI * (double)hop / v->sample_rate * f0);
        s->f0 = f0;
        NAMED(excite)(v, s, scratch, f0, hop / 2, hop / 2);
    } else {
        NAMED(excite)(v, s, scratch, f0, 0, hop);
    }
    s->begun = 1;
    s->phase = wrapped(s->phase + 0.5 * ((double)s->f0 + f0) * (TWO_PI * (double)hop / v->sample_rate));
    s->f0 = f0;
}

/* Rows x [count][dim] that the last block gave, read at the stream's rate, to the rows that wait for excitation. */
INLINE TARGET void NAMED(read)(const struct vocoder *v, struct stream *s, const struct scratch *scratch, int64_t count,
                               const float *x, int last)
{
    const int64_t dim = v->dim;
    if (s->rate == 1) {
        memcpy(scratch->frames + s->frames * dim, x, (size_t)(count * dim) * sizeof *x);
        s->frames += count;
        return;
    }
    for (int64_t r = 0; r < count + last; r++, x += dim) {
        const int over = r == count;
        const float *row = over ? scratch->newest : x;
        double share;
        s->rows.seen += !over;
        while (next_place(&s->rows, s->rate, over, &share)) {
            float *to = scratch->frames + s->frames++ * dim;
            for (int64_t i = 0; i < dim; i += LANES) {
                const NAMED(lanes) before = NAMED(load)(scratch->newest + i);
                NAMED(store)(to + i, (float)share * (NAMED(load)(row + i) - before) + before);
            }
        }
        if (!over) memcpy(scratch->newest, row, (size_t)dim * sizeof *row);
    }
}

/* The chunk in pieces: `push` and `finish` of VocoderStream. white: samples of noise. Returns the number of samples
   written. */
TARGET static int64_t NAMED(run)(const struct vocoder *v, struct stream *s, const struct scratch *scratch,
                                 int64_t count, const int64_t *tokens, int64_t white, const float *noise, int last,
                                 float *samples)
{
    const int64_t dim = v->dim, wide = v->wide, hop = v->hop, phases = v->phases, margin = (v->n_fft - hop) / 2;
    const int64_t reach = v->kernel - 1;
    float *x = scratch->a + reach * dim, *y = scratch->b + reach * dim, *context = scratch->contexts;
    int64_t *kept = scratch->kept;

    memcpy(scratch->noise + s->noise, noise, (size_t)white * sizeof *noise);
    s->noise += white;
    for (int64_t r = 0; r < count; r++) {
        const float *token = v->token_embedding + tokens[r] * dim, *who = scratch->who;
        for (int64_t i = 0; i < dim; i += LANES) NAMED(store)(x + r * dim + i, NAMED(load)(token + i) + NAMED(load)(who + i));
        NAMED(normalise)(&v->token_norm, dim, x + r * dim, x + r * dim);
    }
    for (int64_t l = 0; l < v->token_blocks; l++, context += reach * dim) {
        count = NAMED(block)(v, v->tokens + l, dim, context, kept++, x, count, last, scratch, y);
        float *swap = x;
        x = y;
        y = swap;
    }
    memcpy(scratch->hidden + s->hidden * dim, x, (size_t)(count * dim) * sizeof *x);
    s->hidden += count;

    float *branch = scratch->a + reach * wide, *other = scratch->b + reach * wide;
    apply(&v->prosody_in, count, scratch->hidden + (s->hidden - count) * dim, branch);
    for (int64_t l = 0; l < v->prosody_blocks; l++, context += reach * wide) {
        count = NAMED(block)(v, v->prosody + l, wide, context, kept++, branch, count, last, scratch, other);
        float *swap = branch;
        branch = other;
        other = swap;
    }
    for (int64_t r = 0; r < count; r++) NAMED(normalise)(&v->prosody_norm, wide, branch + r * wide, branch + r * wide);
    apply(&v->prosody_out, count, branch, scratch->prosody);

    x = scratch->a + reach * dim;
    y = scratch->b + reach * dim;
    apply(&v->upsample, count, scratch->hidden, x);
    for (int64_t r = 0; r < count; r++)
        for (int64_t p = 0; p < phases; p++) {
            const float *raw = scratch->prosody + r * 3 * phases + p;
            float f0 = expf(5 + 0.5f * raw[phases]);
            f0 = f0 < (float)v->f0_floor ? (float)v->f0_floor : f0 > (float)v->f0_ceil ? (float)v->f0_ceil : f0;
            const float voiced = 1 / (1 + expf(-raw[0])), pitch = (logf(f0) - 5) / 0.5f;
            const float values[4] = {voiced, pitch, voiced * pitch, ((raw[2 * phases] - 5) + 5) * 0.5f};
            const float *by = v->prosody_embedding, *who = scratch->who + dim;
            float *row = x + (r * phases + p) * dim;
            for (int64_t i = 0; i < dim; i += LANES) {
                NAMED(lanes) extra = NAMED(load)(who + i);
                for (int k = 0; k < 4; k++) extra += values[k] * NAMED(load)(by + k * dim + i);
                NAMED(store)(row + i, NAMED(load)(row + i) + extra);
            }
            NAMED(normalise)(&v->frame_norm, dim, row, row);
            if (s->rate == 1) {
                NAMED(sound)(v, s, scratch, f0);
                continue;
            }
            double share;
            for (s->pitch.seen++; next_place(&s->pitch, s->rate, 0, &share);)
                NAMED(sound)(v, s, scratch, (float)(s->predicted + share * ((double)f0 - s->predicted)));
            s->predicted = f0;
        }
    s->hidden -= count;
    memmove(scratch->hidden, scratch->hidden + count * dim, (size_t)(s->hidden * dim) * sizeof *x);
    count *= phases;
    for (int64_t l = 0; l < v->frame_blocks; l++, context += reach * dim) {
        count = NAMED(block)(v, v->frames + l, dim, context, kept++, x, count, last, scratch, y);
        float *swap = x;
        x = y;
        y = swap;
    }
    NAMED(read)(v, s, scratch, count, x, last);
    if (last) {
        for (double share; s->rate != 1 && next_place(&s->pitch, s->rate, 1, &share);)
            NAMED(sound)(v, s, scratch, s->predicted);
        NAMED(excite)(v, s, scratch, s->f0, 0, hop / 2);
        memset(scratch->noise + s->noise, 0, (size_t)margin * sizeof(float));
        memset(scratch->pulses + s->driven, 0, (size_t)margin * sizeof(float));
        memset(scratch->by_cosine + s->driven, 0, (size_t)margin * sizeof(float));
        memset(scratch->by_sine + s->driven, 0, (size_t)margin * sizeof(float));
        s->noise += margin;
        s->driven += margin;
    }
    return NAMED(emit)(v, s, scratch, last, samples);
}

#undef LANES
#undef NAMED
#undef TARGET
#undef EACH
