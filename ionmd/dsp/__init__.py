"""Filter, epoch, average, peak, spectrum: thin faces of the compiled kernels in ext/dsp.

Streaming arrays are float32 `[sample, column]` with `stride_of(columns)` columns per row; finished averages are
float64 `[derivation, sample]`.  Coefficients, state and sums are float64.  Promises and numbers: docs/performance.md.
"""
