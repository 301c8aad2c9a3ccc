// Small kernels that test the emulation itself: each pair is right and wrong in one way.
#include <cuda_runtime.h>

#include <exception>

static __device__ float reduce_block(float value, float* partial) {
  for (int offset = 16; offset > 0; offset /= 2) {
    value += __shfl_down_sync(0xFFFFFFFFu, value, offset);
  }
  if (threadIdx.x % 32 == 0) partial[threadIdx.x / 32] = value;
  __syncthreads();
  float sum = 0.0f;
  for (unsigned i = 0; i < blockDim.x / 32; ++i) sum += partial[i];
  return sum;
}

static __global__ void sum(const float* in, float* out, int n) {
  __shared__ float partial[32];
  const int i = blockIdx.x * blockDim.x + threadIdx.x;
  const float total = reduce_block(i < n ? in[i] : 0.0f, partial);
  if (threadIdx.x == 0) out[blockIdx.x] = total;
}

template <bool kBarrier>
static __global__ void rotate(const float* in, float* out, int n) {
  __shared__ float tile[64];
  const int i = threadIdx.x;
  tile[i] = i < n ? in[i] : 0.0f;
  if (kBarrier) __syncthreads();
  out[i] = tile[(i + 1) % 64];
}

// The second use of the tile must wait for the first to be read.
template <bool kBarrier>
static __global__ void rotate_twice(const float* in, float* out) {
  extern __shared__ float tile[];
  const int i = threadIdx.x, n = blockDim.x;
  tile[i] = in[i];
  __syncthreads();
  const float next = tile[(i + 1) % n];
  if (kBarrier) __syncthreads();
  tile[i] = next;
  __syncthreads();
  out[i] = tile[(i + 1) % n];
}

// The second reduction overwrites what thread 0 still reads of the first.
template <bool kBarrier>
static __global__ void sum_twice(const float* in, float* out) {
  __shared__ float partial[4];
  for (int round = 0; round < 2; ++round) {
    float value = in[threadIdx.x] + static_cast<float>(round);
    for (int step = 16; step > 0; step /= 2) value += __shfl_xor_sync(0xFFFFFFFFu, value, step);
    if (threadIdx.x % 32 == 0) partial[threadIdx.x / 32] = value;
    __syncthreads();
    if (threadIdx.x == 0) out[round] = partial[0] + partial[1] + partial[2] + partial[3];
    if (kBarrier) __syncthreads();
  }
}

static __global__ void diverge(float* out, int n) {
  if (static_cast<int>(threadIdx.x) < n) __syncthreads();
  out[threadIdx.x] = 1.0f;
}

static __global__ void two_barriers(float* out) {
  if (threadIdx.x % 2) {
    __syncthreads();
  } else {
    __syncthreads();
  }
  out[threadIdx.x] = 1.0f;
}

static __global__ void absent_lane(float* out) {
  if (threadIdx.x == 7) return;
  out[threadIdx.x] = __shfl_xor_sync(0xFFFFFFFFu, 1.0f, 1);
}

static __global__ void copy(const float* in, float* out, int n) {
  const int i = blockIdx.x * blockDim.x + threadIdx.x;
  if (i < n) out[i] = in[i];
}

static __global__ void copy_shared(const float* in, float* out, int offset) {
  __shared__ float tile[32];
  tile[threadIdx.x + offset] = in[threadIdx.x];
  out[threadIdx.x] = tile[threadIdx.x + offset];
}

struct alignas(16) Four {
  float value[4];
};

static __global__ void copy_vector(const float* in, float* out) {
  reinterpret_cast<Four*>(out)[threadIdx.x] = reinterpret_cast<const Four*>(in)[threadIdx.x];
}

// A warp that returns before another one waits: its fiber is taken over.
static __global__ void sum_of_second_warp(const float* in, float* out) {
  if (threadIdx.x / 32 != 1) return;
  float value = in[threadIdx.x];
  for (int step = 16; step > 0; step /= 2) value += __shfl_xor_sync(0xFFFFFFFFu, value, step);
  out[threadIdx.x] = value;
}

static __global__ void votes(unsigned* out) {
  out[threadIdx.x] = __ballot_sync(~0u, threadIdx.x % 3 == 0);
}

enum Which {
  kSum, kRotate, kRotateBroken, kRotateTwice, kRotateTwiceBroken, kDiverge, kTwoBarriers,
  kAbsentLane, kCopy, kCopyShared, kCopyVector, kVotes, kBadLaunch,
  kSecondWarp, kSumTwice, kSumTwiceBroken,
};

// Returns nullptr or the message of what went wrong.
extern "C" __attribute__((visibility("default"))) const char* run(int which, const float* in,
                                                                  float* out, int n) {
  static char message[512];
  try {
    switch (which) {
      case kSum: sum<<<(n + 127) / 128, 128>>>(in, out, n); break;
      case kRotate: rotate<true><<<1, 64>>>(in, out, n); break;
      case kRotateBroken: rotate<false><<<1, 64>>>(in, out, n); break;
      case kRotateTwice: rotate_twice<true><<<1, n, n * sizeof(float)>>>(in, out); break;
      case kRotateTwiceBroken: rotate_twice<false><<<1, n, n * sizeof(float)>>>(in, out); break;
      case kDiverge: diverge<<<1, 64>>>(out, n); break;
      case kTwoBarriers: two_barriers<<<1, 64>>>(out); break;
      case kAbsentLane: absent_lane<<<1, 32>>>(out); break;
      case kCopy: copy<<<(n + 63) / 64, 64>>>(in, out, n); break;
      case kCopyShared: copy_shared<<<1, 32>>>(in, out, n); break;
      case kCopyVector: copy_vector<<<1, n / 4>>>(in, out); break;
      case kVotes: votes<<<1, 32>>>(reinterpret_cast<unsigned*>(out)); break;
      case kSecondWarp: sum_of_second_warp<<<1, 96>>>(in, out); break;
      case kSumTwice: sum_twice<true><<<1, 128>>>(in, out); break;
      case kSumTwiceBroken: sum_twice<false><<<1, 128>>>(in, out); break;
      case kBadLaunch: copy<<<1, 2048>>>(in, out, n); break;
    }
  } catch (const std::exception& error) {
    std::strncpy(message, error.what(), sizeof(message) - 1);
    return message;
  }
  const cudaError_t status = cudaGetLastError();
  return status == cudaSuccess ? nullptr : cudaGetErrorString(status);
}
