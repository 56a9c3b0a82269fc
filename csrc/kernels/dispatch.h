// From a value known at run time to a type known at compile time: `dispatch(value, [&](auto typed) { ... })`.
#pragma once

#include "activation.h"

namespace gantrt {

template <class Body>
void dispatch(Act act, float slope, const Body& body) {
  switch (act) {
    case Act::kNone:
      return body(Identity{});
    case Act::kRelu:
      return body(Relu{});
    case Act::kLeakyRelu:
      return body(LeakyRelu{slope});
  }
}

}  // namespace gantrt
