/* templates/exp.h - e to a small power, for any registers: what the exponentials of all instruction
 * sets share. A template: the including file has its registers' vector.h, which says what `vec` and
 * v_... are. */

/* e^(x - k ln 2), where that is at most ln 2 / 2 away from 0: Taylor's polynomial of that degree,
 * at most 7. 2^k times it is e^x. */
INLINE vec exp_rest(vec x, vec k, int degree) {
    vec r = v_fnma(k, v_all(0x1.62e4p-1f), x); /* ln 2 in two parts, the first short */
    r = v_fnma(k, v_all(0x1.7f7d1cp-20f), r);
    static const float over_factorial[] = {1 / 5040.f, 1 / 720.f, 1 / 120.f, 1 / 24.f,
                                           1 / 6.f,    1 / 2.f,   1,         1};
    vec sum = v_all(over_factorial[7 - degree]);
    for (int i = 8 - degree; i < 8; i++) sum = v_fma(sum, r, v_all(over_factorial[i]));
    return sum;
}
