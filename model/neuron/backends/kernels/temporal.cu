// The integer neuron over T steps: a membrane potential per neuron, in a register from the first
// step to the last, and still one bit per element and step for the backward pass.
//
// Step t of n neurons begins at t * n, its mask bytes at t * ceil(n / 8). NEURON_UNROLL steps are
// loaded before the first of them is needed; what is left over, and lanes that are not whole, go
// step by step.
#include "storage.cuh"
#include "spike.cuh"

struct Recurrence {
  Rule rule;
  float per_divisor, threshold, decay;
};

// Steps start .. start + STEPS - 1: h = u + x, count = fire(h), u = (h - count * threshold) * decay.
template <int STEPS, bool WIDE, bool HALF_UP>
__device__ __forceinline__ void advance(
    Lane lane, int64 start, const Storage* x, Storage* spikes, uint8* mask, int64 n,
    const Recurrence& law, float (&u)[LANE]) {
  float current[STEPS][LANE];
#pragma unroll
  for (int k = 0; k < STEPS; k++) {
    load<WIDE>(x + (start + k) * n + lane.first, lane.count, current[k]);
  }
#pragma unroll
  for (int k = 0; k < STEPS; k++) {
    float fired[LANE];
#pragma unroll
    for (int i = 0; i < LANE; i++) u[i] += current[k][i];
    uint32 inside = fire<HALF_UP>(u, law.rule, fired);
#pragma unroll
    for (int i = 0; i < LANE; i++) {
      u[i] = (u[i] - fired[i] * law.threshold) * law.decay;
      fired[i] *= law.per_divisor;
    }
    store<WIDE>(fired, lane.count, spikes + (start + k) * n + lane.first);
    if (mask) {
      mask[(start + k) * ((n + LANE - 1) / LANE) + lane.index] = mask_byte(inside, lane.count);
    }
  }
}

template <bool WIDE, bool HALF_UP>
__device__ __forceinline__ void forward(
    Lane lane, const Storage* x, Storage* spikes, uint8* mask, const float* before, float* after,
    int64 n, int64 steps, const Recurrence& law) {
  float u[LANE] = {};
  if (before) load<WIDE>(before + lane.first, lane.count, u);
  int64 t = 0;
  if (WIDE && NEURON_UNROLL > 1) {
#pragma unroll 1
    for (; t + NEURON_UNROLL <= steps; t += NEURON_UNROLL) {
      advance<NEURON_UNROLL, WIDE, HALF_UP>(lane, t, x, spikes, mask, n, law, u);
    }
  }
#pragma unroll 1
  for (; t < steps; t++) advance<1, WIDE, HALF_UP>(lane, t, x, spikes, mask, n, law, u);
  if (after) store<WIDE>(u, lane.count, after + lane.first);
}

// Steps end - 1 down to end - STEPS. With G the gradient of the potential carried on:
// dL/dh = g * scale inside the window, decay * G outside (inside, the reset takes back exactly what
// the potential would have passed on); dL/dx = dL/dh, and G of the step before is dL/dh.
template <int STEPS, bool WIDE>
__device__ __forceinline__ void retreat(
    Lane lane, int64 end, const Storage* gradient, const uint8* mask, Storage* result, int64 n,
    float scale, float decay, float (&carried)[LANE]) {
  float g[STEPS][LANE];
  uint32 inside[STEPS];
#pragma unroll
  for (int k = 0; k < STEPS; k++) {
    load<WIDE>(gradient + (end - 1 - k) * n + lane.first, lane.count, g[k]);
    inside[k] = mask[(end - 1 - k) * ((n + LANE - 1) / LANE) + lane.index];
  }
#pragma unroll
  for (int k = 0; k < STEPS; k++) {
#pragma unroll
    for (int i = 0; i < LANE; i++) {
      carried[i] = inside[k] >> i & 1u ? g[k][i] * scale : carried[i] * decay;
    }
    store<WIDE>(carried, lane.count, result + (end - 1 - k) * n + lane.first);
  }
}

template <bool WIDE>
__device__ __forceinline__ void backward(
    Lane lane, const Storage* gradient, const uint8* mask, const float* after, Storage* result,
    float* before, int64 n, int64 steps, float scale, float decay) {
  float carried[LANE] = {};
  if (after) load<WIDE>(after + lane.first, lane.count, carried);
  int64 t = steps;
  if (WIDE && NEURON_UNROLL > 1) {
#pragma unroll 1
    for (; t >= NEURON_UNROLL; t -= NEURON_UNROLL) {
      retreat<NEURON_UNROLL, WIDE>(lane, t, gradient, mask, result, n, scale, decay, carried);
    }
  }
#pragma unroll 1
  for (; t > 0; t--) {
    retreat<1, WIDE>(lane, t, gradient, mask, result, n, scale, decay, carried);
  }
  if (before) store<WIDE>(carried, lane.count, before + lane.first);
}

// `before` and `after` are the potentials before the first and after the last step; null: zero and
// not wanted. No mask is written where `mask` is null.
extern "C" __global__ void __launch_bounds__(BLOCK) temporal_forward(
    const Storage* __restrict__ x, Storage* __restrict__ spikes, uint8* __restrict__ mask,
    const float* __restrict__ before, float* __restrict__ after, int64 n, int64 steps, int wide,
    float per_threshold, float levels, float low, float high, int half_up, float per_divisor,
    float threshold, float decay) {
  Lane lane = this_lane(n);
  Recurrence law = {{per_threshold, levels, low, high}, per_divisor, threshold, decay};
  CHOOSE(forward, lane, wide, half_up, x, spikes, mask, before, after, n, steps, law);
}

// `after` and `before` are the gradients of those two potentials.
extern "C" __global__ void __launch_bounds__(BLOCK) temporal_backward(
    const Storage* __restrict__ gradient, const uint8* __restrict__ mask,
    const float* __restrict__ after, Storage* __restrict__ result, float* __restrict__ before,
    int64 n, int64 steps, int wide, float scale, float decay) {
  Lane lane = this_lane(n);
  if (wide && lane.count == LANE) {
    backward<true>(lane, gradient, mask, after, result, before, n, steps, scale, decay);
  } else if (lane.count > 0) {
    backward<false>(lane, gradient, mask, after, result, before, n, steps, scale, decay);
  }
}
