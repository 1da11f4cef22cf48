// Storage types and lanes. A lane is eight consecutive neurons in storage order: one thread, one
// byte of the mask, and one (16-bit storage) or two (float) 16-byte accesses.
//
// Arithmetic is in float whatever the storage. No CUDA header is included, so that none has to be
// installed or can disagree with NVRTC's version. Half's two conversions are instructions on the
// device; a build for the host defines them before it includes this file.

typedef long long int64;
typedef unsigned char uint8;
typedef unsigned short uint16;
typedef unsigned int uint32;

struct Half {
  uint16 bits;
};

struct Brain {  // bfloat16
  uint16 bits;
};

// The type of inputs and outputs; given when this is compiled: float, Half or Brain.
typedef NEURON_STORAGE Storage;

constexpr int LANE = 8;
constexpr int BLOCK = 256;  // threads a block, the bound that registers are allotted for

#ifdef __CUDA_ARCH__
__device__ __forceinline__ float half_to_float(uint16 bits) {
  float value;
  asm("cvt.f32.f16 %0, %1;" : "=f"(value) : "h"(bits));
  return value;
}

__device__ __forceinline__ uint16 float_to_half(float value) {
  uint16 bits;
  asm("cvt.rn.f16.f32 %0, %1;" : "=h"(bits) : "f"(value));
  return bits;
}
#endif

__device__ __forceinline__ float widen(float value) { return value; }
__device__ __forceinline__ float widen(Half value) { return half_to_float(value.bits); }
__device__ __forceinline__ float widen(Brain value) {
  return __uint_as_float(uint32(value.bits) << 16);
}

__device__ __forceinline__ void narrow(float value, float& to) { to = value; }
__device__ __forceinline__ void narrow(float value, Half& to) { to.bits = float_to_half(value); }
__device__ __forceinline__ void narrow(float value, Brain& to) {
  // Round to nearest, ties to even, on the bits; a NaN must not round up to infinity.
  uint32 bits = __float_as_uint(value);
  bits += 0x7fffu + ((bits >> 16) & 1u);
  to.bits = value == value ? uint16(bits >> 16) : uint16(0x7fc0u);
}

// Two neighbours in one word, the first in the low half.
__device__ __forceinline__ uint32 narrow_pair(float first, float second, Half) {
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 800
  uint32 word;
  asm("cvt.rn.f16x2.f32 %0, %1, %2;" : "=r"(word) : "f"(second), "f"(first));
  return word;
#else
  return uint32(float_to_half(first)) | uint32(float_to_half(second)) << 16;
#endif
}

__device__ __forceinline__ uint32 narrow_pair(float first, float second, Brain) {
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 800
  uint32 word;
  asm("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(word) : "f"(second), "f"(first));
  return word;
#else
  Brain low, high;
  narrow(first, low);
  narrow(second, high);
  return uint32(low.bits) | uint32(high.bits) << 16;
#endif
}

__device__ __forceinline__ void unpack(const float* from, float (&to)[LANE]) {
  const uint4* words = reinterpret_cast<const uint4*>(from);
#pragma unroll
  for (int half = 0; half < 2; half++) {
    uint4 word = words[half];
    to[4 * half + 0] = __uint_as_float(word.x);
    to[4 * half + 1] = __uint_as_float(word.y);
    to[4 * half + 2] = __uint_as_float(word.z);
    to[4 * half + 3] = __uint_as_float(word.w);
  }
}

template <typename Short>
__device__ __forceinline__ void unpack(const Short* from, float (&to)[LANE]) {
  uint4 four = *reinterpret_cast<const uint4*>(from);
  uint32 words[4] = {four.x, four.y, four.z, four.w};
#pragma unroll
  for (int i = 0; i < LANE; i++) {
    to[i] = widen(Short{uint16(words[i / 2] >> (16 * (i % 2)))});
  }
}

__device__ __forceinline__ void pack(const float (&from)[LANE], float* to) {
  uint4* words = reinterpret_cast<uint4*>(to);
#pragma unroll
  for (int half = 0; half < 2; half++) {
    uint4 word;
    word.x = __float_as_uint(from[4 * half + 0]);
    word.y = __float_as_uint(from[4 * half + 1]);
    word.z = __float_as_uint(from[4 * half + 2]);
    word.w = __float_as_uint(from[4 * half + 3]);
    words[half] = word;
  }
}

template <typename Short>
__device__ __forceinline__ void pack(const float (&from)[LANE], Short* to) {
  uint4 four;
  four.x = narrow_pair(from[0], from[1], Short{});
  four.y = narrow_pair(from[2], from[3], Short{});
  four.z = narrow_pair(from[4], from[5], Short{});
  four.w = narrow_pair(from[6], from[7], Short{});
  *reinterpret_cast<uint4*>(to) = four;
}

// Eight values at `from`. WIDE: all are real and 16-byte accesses are aligned; else one by one, the
// first `count` of them. A template, so that the wide form is straight-line code.
template <bool WIDE, typename S>
__device__ __forceinline__ void load(const S* from, int count, float (&to)[LANE]) {
  if (WIDE) {
    unpack(from, to);
    return;
  }
#pragma unroll
  for (int i = 0; i < LANE; i++) to[i] = i < count ? widen(from[i]) : 0.0f;
}

template <bool WIDE, typename S>
__device__ __forceinline__ void store(const float (&from)[LANE], int count, S* to) {
  if (WIDE) {
    pack(from, to);
    return;
  }
#pragma unroll
  for (int i = 0; i < LANE; i++) {
    if (i < count) narrow(from[i], to[i]);
  }
}

// One thread's lane among n neurons: its number, its first neuron, how many it has (0: none).
struct Lane {
  int64 index, first;
  int count;
};

__device__ __forceinline__ Lane this_lane(int64 n) {
  Lane lane;
  lane.index = int64(blockIdx.x) * blockDim.x + threadIdx.x;
  lane.first = lane.index * LANE;
  int64 left = n - lane.first;
  lane.count = left <= 0 ? 0 : left < LANE ? int(left) : LANE;
  return lane;
}
