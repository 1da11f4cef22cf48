// The integer neuron without memory: every element for itself, one bit kept for the backward pass.
#include "storage.cuh"
#include "spike.cuh"

template <bool WIDE, bool HALF_UP>
__device__ __forceinline__ void forward(
    Lane lane, const Storage* x, Storage* spikes, uint8* mask, Rule rule, float per_divisor) {
  float value[LANE], fired[LANE];
  load<WIDE>(x + lane.first, lane.count, value);
  uint32 inside = fire<HALF_UP>(value, rule, fired);
#pragma unroll
  for (int i = 0; i < LANE; i++) fired[i] *= per_divisor;
  store<WIDE>(fired, lane.count, spikes + lane.first);
  if (mask) mask[lane.index] = mask_byte(inside, lane.count);
}

template <bool WIDE>
__device__ __forceinline__ void backward(
    Lane lane, const Storage* gradient, const uint8* mask, Storage* result, float scale) {
  float g[LANE];
  load<WIDE>(gradient + lane.first, lane.count, g);
  uint32 inside = mask[lane.index];
#pragma unroll
  for (int i = 0; i < LANE; i++) g[i] = inside >> i & 1u ? g[i] * scale : 0.0f;
  store<WIDE>(g, lane.count, result + lane.first);
}

// spikes = count * per_divisor. No mask is written where `mask` is null.
extern "C" __global__ void __launch_bounds__(BLOCK) integer_forward(
    const Storage* __restrict__ x, Storage* __restrict__ spikes, uint8* __restrict__ mask,
    int64 n, int wide, float per_threshold, float levels, float low, float high, int half_up,
    float per_divisor) {
  Lane lane = this_lane(n);
  Rule rule = {per_threshold, levels, low, high};
  CHOOSE(forward, lane, wide, half_up, x, spikes, mask, rule, per_divisor);
}

// dL/dx = g * scale inside the window, 0 outside; scale = 1 / (divisor * threshold).
extern "C" __global__ void __launch_bounds__(BLOCK) integer_backward(
    const Storage* __restrict__ gradient, const uint8* __restrict__ mask,
    Storage* __restrict__ result, int64 n, int wide, float scale) {
  Lane lane = this_lane(n);
  if (wide && lane.count == LANE) backward<true>(lane, gradient, mask, result, scale);
  else if (lane.count > 0) backward<false>(lane, gradient, mask, result, scale);
}
