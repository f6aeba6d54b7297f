// SPDX-License-Identifier: Apache-2.0
// beta.c -- Lentz's continued fraction of the incomplete beta function, relative error about 1e-14 (presence.py).
#include <math.h>

#include "kernels.h"

static double solid(double x) { return x != 0.0 ? x : 1e-300; }

double beta_fraction(double a, double b, double x) {
    double c = 1.0, d = 1.0 / solid(1.0 - (a + b) * x / (a + 1.0)), h = d;
    for (int m = 1; m < 400; m++) {
        const double a2m = a + 2 * m;
        const double even = m * (b - m) * x / ((a2m - 1.0) * a2m);
        d = 1.0 / solid(1.0 + even * d), c = solid(1.0 + even / c);
        h *= d * c;
        const double odd = -(a + m) * (a + b + m) * x / (a2m * (a2m + 1.0));
        d = 1.0 / solid(1.0 + odd * d), c = solid(1.0 + odd / c);
        h *= d * c;
        if (fabs(d * c - 1.0) < 1e-14) break;
    }
    return h;
}
