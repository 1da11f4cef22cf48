// No neuron: a copy with the neurons' accesses, the ceiling that the benchmark compares them with.
#include "storage.cuh"

extern "C" __global__ void __launch_bounds__(BLOCK) lane_copy(
    const Storage* __restrict__ x, Storage* __restrict__ to, int64 n, int wide) {
  Lane lane = this_lane(n);
  if (wide && lane.count == LANE) {
    constexpr int WORDS = LANE * sizeof(Storage) / sizeof(uint4);
    const uint4* from = reinterpret_cast<const uint4*>(x + lane.first);
    uint4* words = reinterpret_cast<uint4*>(to + lane.first);
#pragma unroll
    for (int i = 0; i < WORDS; i++) words[i] = from[i];
    return;
  }
  for (int i = 0; i < lane.count; i++) to[lane.first + i] = x[lane.first + i];
}
