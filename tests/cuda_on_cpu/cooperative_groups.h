// Clusters and grids as our kernels use them; see cuda_runtime.h here.
#pragma once

#include "cuda_runtime.h"

namespace cooperative_groups {

struct grid_group {
  void sync() const { emulator::meet_grid(); }
};

struct cluster_group {
  struct arrival_token {};
  arrival_token barrier_arrive() const { return {}; }
  void barrier_wait() const { emulator::meet_cluster(); }
  unsigned num_blocks() const { return emulator::cluster_size(); }
  unsigned block_rank() const { return emulator::cluster_rank(); }

  template <class T>
  T* map_shared_rank(T* shared, unsigned rank) const {
    return static_cast<T*>(emulator::at_rank(shared, rank));
  }
};

inline grid_group this_grid() { return {}; }
inline cluster_group this_cluster() { return {}; }

}  // namespace cooperative_groups
