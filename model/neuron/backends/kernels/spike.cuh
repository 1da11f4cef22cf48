// The firing rule of the integer neuron, for one lane: round(clamp(potential / threshold, 0, D)),
// and the one bit a neuron's backward pass needs: was the potential inside the window?

struct Rule {
  float per_threshold;  // 1 / threshold
  float levels;         // D
  float low, high;      // the window is low <= ratio <= high; an open one has the next floats in
};

// NaN stays NaN.
__device__ __forceinline__ float clamp(float value, float top) {
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 800
  asm("max.NaN.f32 %0, %1, 0f00000000;" : "=f"(value) : "f"(value));
  asm("min.NaN.f32 %0, %1, %2;" : "=f"(value) : "f"(value), "f"(top));
  return value;
#else
  value = value < 0.0f ? 0.0f : value;
  return value > top ? top : value;
#endif
}

// Spike counts of a lane, and its mask byte. HALF_UP: exact halves round up, else to even.
template <bool HALF_UP>
__device__ __forceinline__ uint32 fire(
    const float (&potential)[LANE], const Rule& rule, float (&spikes)[LANE]) {
  uint32 inside = 0;
#pragma unroll
  for (int i = 0; i < LANE; i++) {
    float ratio = potential[i] * rule.per_threshold;
    if (ratio >= rule.low && ratio <= rule.high) inside |= 1u << i;
    float clamped = clamp(ratio, rule.levels);
    spikes[i] = HALF_UP ? floorf(clamped + 0.5f) : rintf(clamped);
  }
  return inside;
}

__device__ __forceinline__ uint8 mask_byte(uint32 inside, int count) {
  return uint8(inside & ((1u << count) - 1u));
}

// Calls BODY<wide, half_up>(arguments): the choice is the same for a whole launch but the last lane.
#define CHOOSE(BODY, lane, wide, half_up, ...)                       \
  do {                                                               \
    if ((wide) && (lane).count == LANE) {                            \
      if (half_up) BODY<true, true>(lane, __VA_ARGS__);              \
      else BODY<true, false>(lane, __VA_ARGS__);                     \
    } else if ((lane).count > 0) {                                   \
      if (half_up) BODY<false, true>(lane, __VA_ARGS__);             \
      else BODY<false, false>(lane, __VA_ARGS__);                    \
    }                                                                \
  } while (0)
