// The binary LIF: input decay, hard reset to 0 (detached), sigmoid surrogate. Its backward pass
// reads x again and recomputes the potentials in registers, so the forward pass saves nothing.
#include "storage.cuh"

struct Leak {
  float per_tau;  // 1 / tau
  float threshold;
};

__device__ __forceinline__ float charge(float v, float x, Leak leak) {
  return v + (x - v) * leak.per_tau;
}

__device__ __forceinline__ float settle(float h, Leak leak) {
  return h >= leak.threshold ? 0.0f : h;
}

template <int STEPS, bool WIDE>
__device__ __forceinline__ void advance(
    Lane lane, int64 start, const Storage* x, Storage* spikes, int64 n, Leak leak,
    float (&v)[LANE]) {
  float current[STEPS][LANE];
#pragma unroll
  for (int k = 0; k < STEPS; k++) {
    load<WIDE>(x + (start + k) * n + lane.first, lane.count, current[k]);
  }
#pragma unroll
  for (int k = 0; k < STEPS; k++) {
#pragma unroll
    for (int i = 0; i < LANE; i++) {
      float h = charge(v[i], current[k][i], leak);
      v[i] = settle(h, leak);
      // A NaN potential is a NaN spike.
      current[k][i] = h == h ? (h >= leak.threshold ? 1.0f : 0.0f) : h;
    }
    store<WIDE>(current[k], lane.count, spikes + (start + k) * n + lane.first);
  }
}

template <bool WIDE>
__device__ __forceinline__ void forward(
    Lane lane, const Storage* x, Storage* spikes, int64 n, int64 steps, Leak leak) {
  float v[LANE] = {};
  int64 t = 0;
  if (WIDE && NEURON_UNROLL > 1) {
#pragma unroll 1
    for (; t + NEURON_UNROLL <= steps; t += NEURON_UNROLL) {
      advance<NEURON_UNROLL, WIDE>(lane, t, x, spikes, n, leak, v);
    }
  }
#pragma unroll 1
  for (; t < steps; t++) advance<1, WIDE>(lane, t, x, spikes, n, leak, v);
}

// Segments of NEURON_UNROLL steps, from the last to the first. A segment's potentials are held in
// registers; those before it are recomputed from x: with T <= NEURON_UNROLL nothing is read twice,
// beyond that about T / (2 NEURON_UNROLL) times. Nothing is stored.
template <bool WIDE>
__device__ __forceinline__ void backward(
    Lane lane, const Storage* gradient, const Storage* x, Storage* result, int64 n, int64 steps,
    Leak leak, float alpha) {
  float carried[LANE] = {};
#pragma unroll 1
  for (int64 start = (steps - 1) / NEURON_UNROLL * NEURON_UNROLL; start >= 0;
       start -= NEURON_UNROLL) {
    float v[LANE] = {};
    float h[NEURON_UNROLL][LANE];
#pragma unroll 1
    for (int64 t = 0; t < start; t++) {
      float current[LANE];
      load<WIDE>(x + t * n + lane.first, lane.count, current);
#pragma unroll
      for (int i = 0; i < LANE; i++) v[i] = settle(charge(v[i], current[i], leak), leak);
    }
#pragma unroll
    for (int k = 0; k < NEURON_UNROLL; k++) {
      if (start + k < steps) {
        load<WIDE>(x + (start + k) * n + lane.first, lane.count, h[k]);
#pragma unroll
        for (int i = 0; i < LANE; i++) {
          h[k][i] = charge(v[i], h[k][i], leak);
          v[i] = settle(h[k][i], leak);
        }
      }
    }
#pragma unroll
    for (int k = NEURON_UNROLL - 1; k >= 0; k--) {
      if (start + k < steps) {
        float g[LANE];
        load<WIDE>(gradient + (start + k) * n + lane.first, lane.count, g);
#pragma unroll
        for (int i = 0; i < LANE; i++) {
          float above = h[k][i] - leak.threshold;
          float s = 1.0f / (1.0f + expf(-alpha * above));
          float through = g[i] * (alpha * (1.0f - s) * s);
          // A spike resets: nothing passes on. NaN: no gradient at all.
          float kept = h[k][i] >= leak.threshold ? 0.0f : carried[i];
          float total = above == above ? through + kept : 0.0f;
          g[i] = total * leak.per_tau;
          carried[i] = total * (1.0f - leak.per_tau);
        }
        store<WIDE>(g, lane.count, result + (start + k) * n + lane.first);
      }
    }
  }
}

extern "C" __global__ void __launch_bounds__(BLOCK) lif_forward(
    const Storage* __restrict__ x, Storage* __restrict__ spikes, int64 n, int64 steps, int wide,
    float per_tau, float threshold) {
  Lane lane = this_lane(n);
  Leak leak = {per_tau, threshold};
  if (wide && lane.count == LANE) forward<true>(lane, x, spikes, n, steps, leak);
  else if (lane.count > 0) forward<false>(lane, x, spikes, n, steps, leak);
}

extern "C" __global__ void __launch_bounds__(BLOCK) lif_backward(
    const Storage* __restrict__ gradient, const Storage* __restrict__ x,
    Storage* __restrict__ result, int64 n, int64 steps, int wide, float per_tau, float threshold,
    float alpha) {
  Lane lane = this_lane(n);
  Leak leak = {per_tau, threshold};
  if (wide && lane.count == LANE) {
    backward<true>(lane, gradient, x, result, n, steps, leak, alpha);
  } else if (lane.count > 0) {
    backward<false>(lane, gradient, x, result, n, steps, leak, alpha);
  }
}
