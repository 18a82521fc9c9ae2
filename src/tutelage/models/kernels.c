/* What lies between two matrix products, in one pass over memory each: norm, rotary positions, gated activation, loss.

   Float32, rows of a contiguous matrix. The functions named *_rows do a range of rows and are made for several
   instruction sets; the exported ones share the rows among threads. OpenMP is taken from the process (torch brings
   it), so that there is one pool of threads. */

#include <math.h>
#include <stdint.h>
#include <string.h>

#define EXPORT __attribute__((visibility("default")))
#if defined(__x86_64__) && defined(__linux__) && defined(__GNUC__) && !defined(__clang__)
#define CLONES __attribute__((target_clones("arch=x86-64-v4", "arch=x86-64-v3", "default")))
#else
#define CLONES
#endif

enum activation { SILU = 0, GELU_TANH = 1 };

/* exp with an error of about one unit in the last place: 2^n times a polynomial on [-ln2/2, ln2/2]. A number that is
   not one stays so. */
static inline __attribute__((always_inline)) float exp_of(float x) {
    x = x > 88.0f ? 88.0f : x;
    x = x < -87.0f ? -87.0f : x;
    float n = floorf(x * 1.44269504088896341f + 0.5f);
    float r = (x - n * 0.693359375f) + n * 2.12194440e-4f;
    float p = 1.9875691500e-4f;
    p = p * r + 1.3981999507e-3f;
    p = p * r + 8.3334519073e-3f;
    p = p * r + 4.1665795894e-2f;
    p = p * r + 1.6666665459e-1f;
    p = p * r + 5.0000001201e-1f;
    p = p * r * r + r + 1.0f;
    uint32_t bits = (uint32_t)((int32_t)n + 127) << 23;
    float scale;
    memcpy(&scale, &bits, sizeof scale);
    return p * scale;
}

/* The activation and its slope. */
static inline __attribute__((always_inline)) void activate(float g, int kind, float *value, float *slope) {
    if (kind == SILU) {
        float s = 1.0f / (1.0f + exp_of(-g));
        *value = g * s;
        *slope = s * (1.0f + g * (1.0f - s));
    } else {
        const float k = 0.7978845608028654f, c = 0.044715f;
        float t = 1.0f - 2.0f / (1.0f + exp_of(2.0f * k * (g + c * g * g * g)));
        *value = 0.5f * g * (1.0f + t);
        *slope = 0.5f * (1.0f + t) + 0.5f * g * (1.0f - t * t) * k * (1.0f + 3.0f * c * g * g);
    }
}

CLONES static void gated_forward_range(const float *gate, const float *up, float *out, int64_t from, int64_t to,
                                       int kind) {
    if (kind == SILU) {
        for (int64_t i = from; i < to; i++) {
            float value, slope;
            activate(gate[i], SILU, &value, &slope);
            out[i] = value * up[i];
        }
    } else {
        for (int64_t i = from; i < to; i++) {
            float value, slope;
            activate(gate[i], GELU_TANH, &value, &slope);
            out[i] = value * up[i];
        }
    }
}

CLONES static void gated_backward_range(const float *d_out, const float *gate, const float *up, float *restrict d_gate,
                                        float *restrict d_up, int64_t from, int64_t to, int kind) {
    if (kind == SILU) {
        for (int64_t i = from; i < to; i++) {
            float value, slope;
            activate(gate[i], SILU, &value, &slope);
            d_up[i] = d_out[i] * value;
            d_gate[i] = d_out[i] * up[i] * slope;
        }
    } else {
        for (int64_t i = from; i < to; i++) {
            float value, slope;
            activate(gate[i], GELU_TANH, &value, &slope);
            d_up[i] = d_out[i] * value;
            d_gate[i] = d_out[i] * up[i] * slope;
        }
    }
}

CLONES static void norm_forward_rows(const float *x, const float *weight, float *restrict y, float *restrict inverse,
                                     int64_t from, int64_t to, int64_t width, float eps, float offset) {
    for (int64_t row = from; row < to; row++) {
        const float *in = x + row * width;
        float *out = y + row * width;
        float sum = 0.0f;
#pragma omp simd reduction(+ : sum)
        for (int64_t i = 0; i < width; i++) sum += in[i] * in[i];
        float r = 1.0f / sqrtf(sum / (float)width + eps);
        inverse[row] = r;
        for (int64_t i = 0; i < width; i++) out[i] = in[i] * r * (weight[i] + offset);
    }
}

CLONES static void norm_backward_rows(const float *dy, const float *x, const float *weight, const float *inverse,
                                      float *restrict dx, float *restrict d_weight, int64_t from, int64_t to,
                                      int64_t width, float offset) {
    for (int64_t row = from; row < to; row++) {
        const float *in = x + row * width, *d = dy + row * width;
        float *out = dx + row * width;
        float r = inverse[row], dot = 0.0f;
#pragma omp simd reduction(+ : dot)
        for (int64_t i = 0; i < width; i++) dot += d[i] * (weight[i] + offset) * in[i];
        float share = dot * r * r / (float)width;
        for (int64_t i = 0; i < width; i++) out[i] = r * (d[i] * (weight[i] + offset) - in[i] * share);
        if (d_weight)
            for (int64_t i = 0; i < width; i++) d_weight[i] += d[i] * in[i] * r;
    }
}

/* Turn by `angles` (cos, sin of each position), or back: the second half of each head is the imaginary part. */
CLONES static void rotate_rows(const float *x, const float *cosine, const float *sine, float *restrict y, int64_t from,
                               int64_t to, int64_t heads, int64_t dim, int back) {
    int64_t half = dim / 2;
    for (int64_t row = from; row < to; row++) {
        const float *c = cosine + row * dim, *s = sine + row * dim;
        for (int64_t head = 0; head < heads; head++) {
            const float *a = x + (row * heads + head) * dim, *b = a + half;
            float *u = y + (row * heads + head) * dim, *v = u + half;
            if (back)
                for (int64_t i = 0; i < half; i++) {
                    u[i] = a[i] * c[i] + b[i] * s[i + half];
                    v[i] = b[i] * c[i + half] - a[i] * s[i];
                }
            else
                for (int64_t i = 0; i < half; i++) {
                    u[i] = a[i] * c[i] - b[i] * s[i];
                    v[i] = b[i] * c[i + half] + a[i] * s[i + half];
                }
        }
    }
}

/* nll of each row's target; the row becomes weight * (softmax - onehot) where `gradient` is set. */
CLONES static void nll_rows(float *logits, const int64_t *target, const float *weight, float *nll, int64_t from,
                            int64_t to, int64_t width, int gradient) {
    for (int64_t row = from; row < to; row++) {
        float *z = logits + row * width;
        float highest = z[0], at_target = z[target[row]];
#pragma omp simd reduction(max : highest)
        for (int64_t i = 1; i < width; i++) highest = z[i] > highest ? z[i] : highest;
        double total = 0.0;
        for (int64_t start = 0; start < width; start += 1024) {
            int64_t end = start + 1024 < width ? start + 1024 : width;
            float part = 0.0f;
#pragma omp simd reduction(+ : part)
            for (int64_t i = start; i < end; i++) {
                z[i] = exp_of(z[i] - highest);
                part += z[i];
            }
            total += part;
        }
        nll[row] = (float)(log(total) + (double)highest - (double)at_target);
        if (!gradient) continue;
        float scale = (float)(weight[row] / total);
        for (int64_t i = 0; i < width; i++) z[i] *= scale;
        z[target[row]] -= weight[row];
    }
}

/* What kernels.py expects; counted up when a signature changes, so that an old library is not called in a new way. */
EXPORT int tutelage_version(void) { return 1; }

EXPORT void tutelage_gated_forward(const float *gate, const float *up, float *out, int64_t count, int kind,
                                   int threads) {
#pragma omp parallel for schedule(static) num_threads(threads)
    for (int64_t start = 0; start < count; start += 4096)
        gated_forward_range(gate, up, out, start, start + 4096 < count ? start + 4096 : count, kind);
}

EXPORT void tutelage_gated_backward(const float *d_out, const float *gate, const float *up, float *d_gate, float *d_up,
                                    int64_t count, int kind, int threads) {
#pragma omp parallel for schedule(static) num_threads(threads)
    for (int64_t start = 0; start < count; start += 4096)
        gated_backward_range(d_out, gate, up, d_gate, d_up, start, start + 4096 < count ? start + 4096 : count, kind);
}

EXPORT void tutelage_norm_forward(const float *x, const float *weight, float *y, float *inverse, int64_t rows,
                                  int64_t width, float eps, float offset, int threads) {
#pragma omp parallel for schedule(static) num_threads(threads)
    for (int64_t start = 0; start < rows; start += 16)
        norm_forward_rows(x, weight, y, inverse, start, start + 16 < rows ? start + 16 : rows, width, eps, offset);
}

/* d_weight, where given, has one row of zeros for each thread; their sum is the gradient. */
EXPORT void tutelage_norm_backward(const float *dy, const float *x, const float *weight, const float *inverse,
                                   float *dx, float *d_weight, int64_t rows, int64_t width, float offset,
                                   int threads) {
#pragma omp parallel for schedule(static) num_threads(threads)
    for (int thread = 0; thread < threads; thread++)
        norm_backward_rows(dy, x, weight, inverse, dx, d_weight ? d_weight + thread * width : 0,
                           rows * thread / threads, rows * (thread + 1) / threads, width, offset);
}

EXPORT void tutelage_rotate(const float *x, const float *cosine, const float *sine, float *y, int64_t rows,
                            int64_t heads, int64_t dim, int back, int threads) {
#pragma omp parallel for schedule(static) num_threads(threads)
    for (int64_t start = 0; start < rows; start += 16)
        rotate_rows(x, cosine, sine, y, start, start + 16 < rows ? start + 16 : rows, heads, dim, back);
}

EXPORT void tutelage_nll(float *logits, const int64_t *target, const float *weight, float *nll, int64_t rows,
                         int64_t width, int gradient, int threads) {
#pragma omp parallel for schedule(static) num_threads(threads)
    for (int64_t start = 0; start < rows; start += 4)
        nll_rows(logits, target, weight, nll, start, start + 4 < rows ? start + 4 : rows, width, gradient);
}
