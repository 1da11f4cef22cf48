// What a kernel source needs of CUDA, for g++: a launch is a loop over blocks and threads.
#include <cmath>
#include <cstdint>
#include <cstring>
#include <utility>

#define __device__
#define __global__
#define __forceinline__ inline
#define __launch_bounds__(threads)

struct Index {
  unsigned int x;
};
// Of each thread of the process: two of them may run kernels at once, as two streams do.
static thread_local Index blockIdx, threadIdx, blockDim;

struct alignas(16) uint4 {
  unsigned int x, y, z, w;
};

static inline unsigned int __float_as_uint(float value) {
  unsigned int bits;
  std::memcpy(&bits, &value, sizeof bits);
  return bits;
}

static inline float __uint_as_float(unsigned int bits) {
  float value;
  std::memcpy(&value, &bits, sizeof value);
  return value;
}

static inline float half_to_float(unsigned short bits) {
  _Float16 value;
  std::memcpy(&value, &bits, sizeof value);
  return float(value);
}

static inline unsigned short float_to_half(float value) {
  _Float16 narrow = _Float16(value);
  unsigned short bits;
  std::memcpy(&bits, &narrow, sizeof bits);
  return bits;
}

// Arguments as a CUDA launch takes them: one pointer each, read with the parameter's own type.
template <typename... A, std::size_t... I>
static void loop(void (*kernel)(A...), void** arguments, std::index_sequence<I...>, long long first,
                 long long grid, int block) {
  blockDim.x = block;
  for (long long b = first; b < grid; b++) {
    blockIdx.x = b;
    for (int t = 0; t < block; t++) {
      threadIdx.x = t;
      kernel(*static_cast<std::remove_reference_t<A>*>(arguments[I])...);
    }
  }
}

template <typename... A>
static void run(void (*kernel)(A...), void** arguments, long long first, long long grid,
                int block) {
  loop(kernel, arguments, std::index_sequence_for<A...>{}, first, grid, block);
}

#define LAUNCHER(kernel)                                                                          \
  extern "C" void launch_##kernel(void** arguments, long long first, long long grid, int block) { \
    run(kernel, arguments, first, grid, block);                                                   \
  }
