/* Fourier transforms of LANES signals at once, a signal in each lane: Stockham's form, which needs no reordering.
   vocoder.c includes this once for each width of a vector. */

typedef struct {
    NAMED(lanes) re, im;
} NAMED(complex);

INLINE TARGET NAMED(complex) NAMED(plus)(NAMED(complex) a, NAMED(complex) b)
{
    return (NAMED(complex)){a.re + b.re, a.im + b.im};
}

INLINE TARGET NAMED(complex) NAMED(minus)(NAMED(complex) a, NAMED(complex) b)
{
    return (NAMED(complex)){a.re - b.re, a.im - b.im};
}

INLINE TARGET NAMED(complex) NAMED(times)(NAMED(complex) a, float re, float im)
{
    return (NAMED(complex)){a.re * re - a.im * im, a.re * im + a.im * re};
}

/* a - i t b and a + i t b. */
INLINE TARGET void NAMED(turned)(NAMED(complex) a, NAMED(complex) b, NAMED(complex) *minus, NAMED(complex) *plus)
{
    *minus = (NAMED(complex)){a.re + b.im, a.im - b.re};
    *plus = (NAMED(complex)){a.re - b.im, a.im + b.re};
}

/* y_j = sum of x_k e^(-2 pi i j k / radix), in place. */
INLINE TARGET void NAMED(butterfly)(int radix, NAMED(complex) x[5])
{
    if (radix == 2) {
        const NAMED(complex) a = x[0], b = x[1];
        x[0] = NAMED(plus)(a, b);
        x[1] = NAMED(minus)(a, b);
    } else if (radix == 3) {
        const NAMED(complex) sum = NAMED(plus)(x[1], x[2]), difference = NAMED(minus)(x[1], x[2]);
        const NAMED(complex) half = NAMED(plus)(x[0], NAMED(times)(sum, -0.5f, 0));
        x[0] = NAMED(plus)(x[0], sum);
        NAMED(turned)(half, NAMED(times)(difference, 0.866025404f, 0), &x[1], &x[2]);
    } else if (radix == 4) {
        const NAMED(complex) a = NAMED(plus)(x[0], x[2]), b = NAMED(minus)(x[0], x[2]);
        const NAMED(complex) c = NAMED(plus)(x[1], x[3]), d = NAMED(minus)(x[1], x[3]);
        x[0] = NAMED(plus)(a, c);
        x[2] = NAMED(minus)(a, c);
        NAMED(turned)(b, d, &x[1], &x[3]);
    } else {
        const float c1 = 0.309016994f, c2 = -0.809016994f, s1 = 0.951056516f, s2 = 0.587785252f; /* of 2 pi / 5, 4 pi / 5 */
        const NAMED(complex) a = NAMED(plus)(x[1], x[4]), b = NAMED(minus)(x[1], x[4]);
        const NAMED(complex) c = NAMED(plus)(x[2], x[3]), d = NAMED(minus)(x[2], x[3]);
        const NAMED(complex) one = NAMED(plus)(x[0], NAMED(plus)(NAMED(times)(a, c1, 0), NAMED(times)(c, c2, 0)));
        const NAMED(complex) two = NAMED(plus)(x[0], NAMED(plus)(NAMED(times)(a, c2, 0), NAMED(times)(c, c1, 0)));
        x[0] = NAMED(plus)(x[0], NAMED(plus)(a, c));
        NAMED(turned)(one, NAMED(plus)(NAMED(times)(b, s1, 0), NAMED(times)(d, s2, 0)), &x[1], &x[4]);
        NAMED(turned)(two, NAMED(minus)(NAMED(times)(b, s2, 0), NAMED(times)(d, s1, 0)), &x[2], &x[3]);
    }
}

/* One pass: transforms of `length` points that lie `stride` apart become transforms of length / radix points, radix
   times as many. roots [length stride][2], of which every root_step-th is meant. */
INLINE TARGET void NAMED(pass)(int radix, int64_t length, int64_t stride, const float *roots, int64_t root_step,
                               const NAMED(complex) *x, NAMED(complex) *y)
{
    const int64_t apart = length / radix;
    for (int64_t p = 0; p < apart; p++, x += stride, y += radix * stride) {
        const float *by = roots + 2 * p * stride * root_step;
        const int64_t next = by - roots;
        for (int64_t q = 0; q < stride; q++) {
            NAMED(complex) part[5];
            UNROLL_ALL
            for (int k = 0; k < radix; k++) part[k] = x[q + stride * apart * k];
            NAMED(butterfly)(radix, part);
            y[q] = part[0];
            UNROLL_ALL
            for (int j = 1; j < radix; j++)
                y[q + stride * j] = NAMED(times)(part[j], roots[j * next], roots[j * next + 1]);
        }
    }
}

/* Transform x [count], a number 2^a 3^b 5^c; it ends in x or in `other` [count], whichever is returned. */
TARGET static NAMED(complex) *NAMED(fourier)(int64_t count, const float *roots, int64_t root_step, NAMED(complex) *x,
                                             NAMED(complex) *other)
{
    for (int64_t left = count, stride = 1; left > 1;) {
        int64_t radix = 4;
        if (left % 4 == 0) NAMED(pass)(4, left, stride, roots, root_step, x, other);
        else if (left % 2 == 0) NAMED(pass)((int)(radix = 2), left, stride, roots, root_step, x, other);
        else if (left % 3 == 0) NAMED(pass)((int)(radix = 3), left, stride, roots, root_step, x, other);
        else NAMED(pass)((int)(radix = 5), left, stride, roots, root_step, x, other);
        NAMED(complex) *swap = x;
        x = other;
        other = swap;
        left /= radix;
        stride *= radix;
    }
    return x;
}
