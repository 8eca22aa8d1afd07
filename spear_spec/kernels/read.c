/* How fast memory is read: for the roofline of `bench`. */

#include "common.h"

/* The sum of x [count], in four parts that do not wait for one another. */
EVERY_CPU float spear_read(const float *x, int64_t count)
{
    const int64_t part = count / 4;
    float one = 0, two = 0, three = 0, four = 0;
    for (int64_t i = 0; i < part; i++) {
        one += x[i];
        two += x[part + i];
        three += x[2 * part + i];
        four += x[3 * part + i];
    }
    return one + two + three + four;
}
