// BatchNorm and the integer neuron in one pass, for training: the normalized values are never
// stored. Statistics come from outside (so that they can be reduced over workers first).
//
// Element i of the storage order has channel (i / inner) % channels: inner is H * W where planes
// are contiguous, 1 where channels are (channels_last).
#include "storage.cuh"
#include "spike.cuh"

// Channels of a lane's elements; 32-bit division where the offset fits.
__device__ __forceinline__ void lane_channels(
    int64 first, int64 inner, int64 channels, int (&to)[LANE]) {
  int64 plane, position;
  if (first >> 32 == 0 && inner >> 32 == 0) {
    plane = uint32(first) / uint32(inner);
    position = first - plane * inner;
  } else {
    plane = first / inner;
    position = first - plane * inner;
  }
  int channel = plane >> 32 == 0 ? int(uint32(plane) % uint32(channels)) : int(plane % channels);
#pragma unroll
  for (int i = 0; i < LANE; i++) {
    to[i] = channel;
    if (++position == inner) {
      position = 0;
      channel = channel + 1 == channels ? 0 : channel + 1;
    }
  }
}

// What is the same for a whole launch.
struct Shape {
  int64 inner, channels;
};

template <bool WIDE, bool HALF_UP>
__device__ __forceinline__ void forward(
    Lane lane, const Storage* x, const float* mean, const float* gain, const float* bias,
    Storage* spikes, uint8* mask, Shape shape, Rule rule, float per_divisor) {
  // Loaded before the channels are known: the other order spills on sm_100.
  float value[LANE], fired[LANE];
  load<WIDE>(x + lane.first, lane.count, value);
  int channel[LANE];
  lane_channels(lane.first, shape.inner, shape.channels, channel);
#pragma unroll
  for (int i = 0; i < LANE; i++) {
    int c = channel[i];
    value[i] = (value[i] - mean[c]) * gain[c] + bias[c];
  }
  uint32 inside = fire<HALF_UP>(value, rule, fired);
#pragma unroll
  for (int i = 0; i < LANE; i++) fired[i] *= per_divisor;
  store<WIDE>(fired, lane.count, spikes + lane.first);
  if (mask) mask[lane.index] = mask_byte(inside, lane.count);
}

// y = (x - mean) * gain + bias, gain = weight / deviation; spikes = count(y) * per_divisor.
extern "C" __global__ void __launch_bounds__(BLOCK) norm_forward(
    const Storage* __restrict__ x, const float* __restrict__ mean, const float* __restrict__ gain,
    const float* __restrict__ bias, Storage* __restrict__ spikes, uint8* __restrict__ mask,
    int64 n, int64 inner, int64 channels, int wide, float per_threshold, float levels, float low,
    float high, int half_up, float per_divisor) {
  Lane lane = this_lane(n);
  Rule rule = {per_threshold, levels, low, high};
  Shape shape = {inner, channels};
  CHOOSE(forward, lane, wide, half_up, x, mean, gain, bias, spikes, mask, shape, rule, per_divisor);
}

// Sums over a channel's elements of d = dL/dy and d * (x - mean). Worker w of a channel adds its
// elements w, w + workers, ... in that order: no atomics, so every run gives the same bits.
// Neighbouring threads read neighbouring elements: workers of a channel where planes are
// contiguous, channels where inner is 1. Result: (2, channels, workers).
extern "C" __global__ void __launch_bounds__(BLOCK) norm_sums(
    const Storage* __restrict__ gradient, const Storage* __restrict__ x,
    const uint8* __restrict__ mask, const float* __restrict__ mean, float* __restrict__ sums,
    int64 n, int64 inner, int64 channels, int64 workers, float scale) {
  int64 thread = int64(blockIdx.x) * blockDim.x + threadIdx.x;
  if (thread >= channels * workers) return;
  int64 channel = inner == 1 ? thread % channels : thread / workers;
  int64 worker = inner == 1 ? thread / channels : thread % workers;
  int64 stride = inner * channels;
  int64 position = worker % inner;
  int64 offset = worker / inner * stride + channel * inner + position;
  // From an element to the next: whole planes at once, then at most one more.
  int64 rest = workers % inner;
  int64 leap = workers / inner * stride + rest;
  float center = mean[channel];
  float plain = 0.0f, weighted = 0.0f;
  while (offset < n) {
    if (mask[offset / LANE] >> (offset % LANE) & 1u) {
      float d = widen(gradient[offset]) * scale;
      plain += d;
      weighted += d * (widen(x[offset]) - center);
    }
    offset += leap;
    position += rest;
    if (position >= inner) {
      position -= inner;
      offset += stride - inner;
    }
  }
  sums[channel * workers + worker] = plain;
  sums[(channels + channel) * workers + worker] = weighted;
}

template <bool WIDE>
__device__ __forceinline__ void backward(
    Lane lane, const Storage* gradient, const Storage* x, const uint8* mask, const float* mean,
    const float* gain, const float* level, const float* slope, Storage* result, Shape shape,
    float scale) {
  int channel[LANE];
  lane_channels(lane.first, shape.inner, shape.channels, channel);
  float g[LANE], value[LANE];
  load<WIDE>(gradient + lane.first, lane.count, g);
  load<WIDE>(x + lane.first, lane.count, value);
  uint32 inside = mask[lane.index];
#pragma unroll
  for (int i = 0; i < LANE; i++) {
    int c = channel[i];
    float d = inside >> i & 1u ? g[i] * scale : 0.0f;
    g[i] = (d - level[c] - (value[i] - mean[c]) * slope[c]) * gain[c];
  }
  store<WIDE>(g, lane.count, result + lane.first);
}

// dL/dx = (d - level - (x - mean) * slope) * gain, with level the channel's mean of d and
// slope = (mean of d * (x - mean)) / variance.
extern "C" __global__ void __launch_bounds__(BLOCK) norm_backward(
    const Storage* __restrict__ gradient, const Storage* __restrict__ x,
    const uint8* __restrict__ mask, const float* __restrict__ mean,
    const float* __restrict__ gain, const float* __restrict__ level,
    const float* __restrict__ slope, Storage* __restrict__ result, int64 n, int64 inner,
    int64 channels, int wide, float scale) {
  Lane lane = this_lane(n);
  Shape shape = {inner, channels};
  if (wide && lane.count == LANE) {
    backward<true>(lane, gradient, x, mask, mean, gain, level, slope, result, shape, scale);
  } else if (lane.count > 0) {
    backward<false>(lane, gradient, x, mask, mean, gain, level, slope, result, shape, scale);
  }
}
