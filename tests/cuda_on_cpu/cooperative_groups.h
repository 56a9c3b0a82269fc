// Clusters and grids as our kernels use them; see cuda_runtime.h here.
#pragma once

#include "cuda_runtime.h"

namespace cooperative_groups {

struct grid_group {
  void sync() const { emulator::meet_blocks(); }
};

struct cluster_group {
  void sync() const { emulator::meet_blocks(); }
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
